"""What a measuring program says: metrics and notes, a skip, or a failure; pure."""

from __future__ import annotations

import json
import math
from typing import Any

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.harness.lab.machine import CommandResult
from hyperbox.harness.model import Experiment

__all__ = ["SKIP_STATUS", "parse_output"]

SKIP_STATUS = 77
"""Exit status of a program that says "this kernel cannot do it" (automake's convention)."""


def parse_output(
    result: CommandResult, experiment: Experiment
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return metrics and notes from a program's last line of output.

    Raises
    ------
    KernelFeatureMissing
        On exit status 77, with the program's reason.
    WorkloadError
        On any other failure, or if the line is not what the experiment declares.
    """
    said = result.stdout.decode(errors="replace").strip().splitlines()
    last = said[-1] if said else ""
    if result.status not in (0, SKIP_STATUS):
        raise WorkloadError(f"{_ending(result.status)}: {_complaint(result)}")
    try:
        data = json.loads(last, parse_constant=_refuse_constant)
    except ValueError as error:
        raise WorkloadError(f"last line of output is not JSON ({error}): {last[:80]!r}") from None
    if not isinstance(data, dict):
        raise WorkloadError(f"last line of output is not a JSON object: {last[:80]!r}")
    if result.status == SKIP_STATUS:
        raise KernelFeatureMissing(str(data.get("skip") or "the program gave no reason"))
    notes = data.get("notes", {})
    if not isinstance(notes, dict):
        raise WorkloadError(f"notes must be an object, not {notes!r}")
    return _metrics(data.get("metrics"), experiment), notes


def _metrics(data: object, experiment: Experiment) -> dict[str, float]:
    if not isinstance(data, dict):
        raise WorkloadError('the last line of output has no "metrics" object')
    declared = [metric.id for metric in experiment.metrics]
    missing = [name for name in declared if name not in data]
    unknown = [name for name in data if name not in declared]
    if missing or unknown:
        what = f"lack {', '.join(missing)}" if missing else f"have unknown {', '.join(unknown)}"
        raise WorkloadError(f"the metrics {what}")
    for name, value in data.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise WorkloadError(f"metric {name} is {value!r}, not a number")
        if not math.isfinite(value):
            raise WorkloadError(f"metric {name} is not finite")
        metric = experiment.metric(name)
        if not metric.holds(value):
            raise WorkloadError(f"metric {name} is {value:g}, which is not {metric.range_text()}")
    return {name: float(data[name]) for name in declared}


def _ending(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def _complaint(result: CommandResult) -> str:
    for stream in (result.stderr, result.stdout):
        lines = stream.decode(errors="replace").strip().splitlines()
        if lines:
            return lines[-1].strip()[:300]
    return "no output"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
