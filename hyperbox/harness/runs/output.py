"""What a measuring program says: metrics and notes, a skip, or a failure; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.foreign import parse_json
from hyperbox.harness.lab.machine import CommandResult
from hyperbox.harness.model import Experiment

__all__ = ["SKIP_STATUS", "parse_output"]

SKIP_STATUS = 77
"""Exit status of a program that says "this kernel cannot do it" (automake's convention)."""

_MOST_RESULT = 1 << 20  # characters of a result: it goes into the record
_MOST_WORDS = 300  # characters of a reason
_LEVELS_AROUND = 8  # of a record around the notes, and some to spare


def parse_output(
    result: CommandResult, experiment: Experiment
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return metrics and notes from a program's last line of output.

    Raises
    ------
    KernelFeatureMissing
        On exit status 77, with the program's reason.
    WorkloadError
        On any other failure, or if the line is not what the experiment declares, or not the
        only one of its kind.
    """
    if result.status not in (0, SKIP_STATUS):
        raise WorkloadError(f"{_ending(result.status)}: {_complaint(result)}")
    # Only "\n" ends a line: JSON may hold everything else that Python takes for an end of one.
    *before, last = result.stdout.decode(errors="replace").strip().split("\n")
    data = _last(last)
    if any(_is_result(line) for line in before):
        raise WorkloadError("the program printed more than one result")
    if result.status == SKIP_STATUS:
        raise KernelFeatureMissing(_reason(data))
    notes = data.get("notes", {})
    if not isinstance(notes, dict):
        raise WorkloadError(f"notes must be an object, not {str(notes)[:_MOST_WORDS]}")
    _check_recordable(notes)
    return _metrics(data.get("metrics"), experiment), notes


def _last(line: str) -> Mapping[str, Any]:
    if len(line) > _MOST_RESULT:
        raise WorkloadError(f"last line of output has more than {_MOST_RESULT} characters")
    try:
        data = parse_json(line)
    except ValueError as error:
        raise WorkloadError(f"last line of output is not JSON ({error}): {line[:80]!r}") from None
    if not isinstance(data, dict):
        raise WorkloadError(f"last line of output is not a JSON object: {line[:80]!r}")
    return data


def _is_result(line: str) -> bool:
    """Whether a line could be taken for a result: a child of the program may print one too."""
    if not line.lstrip().startswith("{"):
        return False
    try:
        data = parse_json(line)
    except ValueError:
        return False
    return isinstance(data, dict) and ("metrics" in data or "skip" in data)


def _reason(data: Mapping[str, Any]) -> str:
    reason = data.get("skip")
    if not isinstance(reason, str) or not reason.strip():
        raise WorkloadError(f"exit status {SKIP_STATUS} without a reason to skip")
    return reason[:_MOST_WORDS]


def _check_recordable(notes: Mapping[str, Any]) -> None:
    """Refuse notes that could be written into a record, but not be read back."""
    try:
        text = json.dumps(notes, ensure_ascii=False)
        text.encode()
        parse_json("[" * _LEVELS_AROUND + text + "]" * _LEVELS_AROUND)
    except UnicodeEncodeError:
        raise WorkloadError("notes hold half of a surrogate pair, which is not Unicode") from None
    except ValueError as error:
        raise WorkloadError(f"notes cannot be put on record: {error}") from None


def _metrics(data: object, experiment: Experiment) -> dict[str, float]:
    if not isinstance(data, dict):
        raise WorkloadError('the last line of output has no "metrics" object')
    declared = [metric.id for metric in experiment.metrics]
    missing = [name for name in declared if name not in data]
    unknown = [name for name in data if name not in declared]
    if missing or unknown:
        what = f"lack {', '.join(missing)}" if missing else f"have unknown {_listed(unknown)}"
        raise WorkloadError(f"the metrics {what}")
    for name, value in data.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise WorkloadError(f"metric {name} is {str(value)[:_MOST_WORDS]!r}, not a number")
        metric = experiment.metric(name)
        if not metric.holds(value):
            raise WorkloadError(f"metric {name} is {value:g}, which is not {metric.range_text()}")
    return {name: float(data[name]) for name in declared}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)[:_MOST_WORDS]


def _ending(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def _complaint(result: CommandResult) -> str:
    for stream in (result.stderr, result.stdout):
        lines = stream.decode(errors="replace").strip().splitlines()
        if lines:
            return lines[-1].strip()[:_MOST_WORDS]
    return "no output"
