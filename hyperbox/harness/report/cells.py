"""Per cell: every metric of every arm, so that no figure hides another. Pure."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyperbox.harness.model import Gate, Lane, Metric
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.statistics.design import InferenceKind
from hyperbox.harness.statistics.location import locate
from hyperbox.harness.verdicts.targets import pairs_kind
from hyperbox.harness.verdicts.wording import number, relative

__all__ = [
    "AttemptRow",
    "MetricRow",
    "attempts",
    "flat",
    "metric_rows",
    "reproduce_commands",
]

_Values = dict[str, dict[str, dict[int, float]]]  # metric, arm, block
_KNOWN = ("number", "status", "reason", "started", "seconds", "retries")
_EXCLUDED = "excluded"


@dataclass(frozen=True)
class MetricRow:
    """One metric of a cell: "median (smallest … largest)" for each arm, in arm order.

    `change` is the relative change of each later arm against the first over all blocks (a
    verdict may rest on the first of them), estimated as in the verdicts of the cell's lane: the
    median in the exact lane, else Hodges and Lehmann's; "" where a ratio has no meaning.
    """

    metric: Metric
    arms: tuple[str, ...]
    changes: tuple[str, ...]
    gates: tuple[str, ...]


@dataclass(frozen=True)
class AttemptRow:
    """One attempt at a cell, as text; `other` holds what the record says beyond that.

    `used` says whether the attempt decides the cell's gates, and why not if it does not.
    """

    cell: str
    number: str
    status: str
    reason: str
    started: str
    seconds: str
    retries: str
    used: str
    other: str

    @property
    def excluded(self) -> bool:
        """Whether the attempt does not decide the cell's gates."""
        return self.used.startswith(_EXCLUDED)

    @property
    def plain(self) -> bool:
        """Whether it was measured at the first attempt, as most are."""
        return self.status == "measured" and self.number == "1"


def metric_rows(run: RunData, cell: CellData) -> tuple[MetricRow, ...]:
    """Return all metrics of a cell's experiment, and those it measured undeclared."""
    experiment = cell.experiment
    declared = {metric.id for metric in experiment.metrics}
    strays = dict.fromkeys(s.metric for s in cell.samples if s.metric not in declared)
    metrics = [
        *experiment.metrics,
        *(Metric(m, f"{m} (undeclared)", "", "neither") for m in strays),
    ]
    values: _Values = {metric.id: {arm.id: {} for arm in experiment.arms} for metric in metrics}
    for sample in cell.samples:
        if sample.arm in values[sample.metric]:
            values[sample.metric][sample.arm][sample.block] = sample.value
    gates = [gate for gate in run.gates if gate.experiment == experiment.id]
    kind = pairs_kind(cell.cell.lane)
    return tuple(_metric_row(metric, values[metric.id], gates, kind) for metric in metrics)


def attempts(run: RunData) -> tuple[AttemptRow, ...]:
    """Return all attempts of all cells, in the order of the cells."""
    return tuple(
        AttemptRow(
            cell=cell.cell.key,
            number=str(record.get("number", "?")),
            status=str(record.get("status", "unknown")),
            reason=str(record.get("reason") or ""),
            started=str(record.get("started") or ""),
            seconds=_seconds(record.get("seconds")),
            retries=str(record.get("retries", "")),
            used=_used(cell, place),
            other=", ".join(f"{key}={value}" for key, value in record.items() if key not in _KNOWN),
        )
        for cell in run.cells
        for place, record in enumerate(cell.attempts)
    )


def reproduce_commands(run: RunData, cell: CellData) -> tuple[str, ...]:
    """Return the commands that measure one cell again: with its very plan, and from scratch.

    Only a measured cell of the exact lane has the first: no other can be compared bit for bit.
    """
    gates = [gate.id for gate in run.gates if gate.experiment == cell.experiment.id]
    if cell.cell.lane is Lane.HOST:
        where = ["--target", "host"]
    else:
        where = ["--kernel", cell.cell.kernel, "--lane", cell.cell.lane]
    again = ["hyperbox", "validate", *gates, *where, "--seed", str(run.seed)]
    if cell.cell.lane is not Lane.EXACT or not cell.samples:
        return (shlex.join(again),)
    # A path of the measuring machine would mean nothing to a reader.
    where_run = f"runs/{run.run_id}" if run.directory.is_absolute() else run.directory.as_posix()
    recorded = ["hyperbox", "reproduce", where_run, "--cell", cell.cell.key]
    return shlex.join(recorded), shlex.join(again)


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested records as "outer.inner" -> text; lists are joined by commas."""
    found: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found.update(flat(value, f"{name}."))
        elif isinstance(value, (list, tuple)):
            found[name] = ", ".join(map(_plain, value))
        else:
            found[name] = _plain(value)
    return found


def _plain(value: object) -> str:
    """Return a fact as text: fractions with two decimals, or three digits below a tenth."""
    if not isinstance(value, float) or not math.isfinite(value):
        return "" if value is None else str(value)
    return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) >= 0.1 else f"{value:.3g}"


def _used(cell: CellData, place: int) -> str:
    """Say what becomes of an attempt: the first that is not failed counts, else the last."""
    statuses = [record.get("status") for record in cell.attempts]
    finished = [at for at, status in enumerate(statuses) if status in ("measured", "skipped")]
    if finished:
        if place == finished[0]:
            return "counts"
        failed = statuses[place] not in ("measured", "skipped")
        why = "failed" if failed else "an earlier attempt counts"
        return f"{_EXCLUDED}: {why}"
    last = place == len(statuses) - 1
    return "counts: no attempt succeeded" if last else f"{_EXCLUDED}: tried again"


def _metric_row(
    metric: Metric,
    by_arm: Mapping[str, Mapping[int, float]],
    gates: Sequence[Gate],
    kind: InferenceKind,
) -> MetricRow:
    first, *later = by_arm.values()
    return MetricRow(
        metric,
        tuple(_spread(list(values.values())) for values in by_arm.values()),
        tuple(_change(first, values, kind) for values in later),
        tuple(gate.id for gate in gates if gate.metric == metric.id),
    )


def _spread(values: list[float]) -> str:
    if not values:
        return "not measured"
    middle = number(statistics.median(values))
    if min(values) == max(values):
        return f"{middle} (all {len(values)} alike)" if len(values) > 1 else middle
    return f"{middle} ({number(min(values))} … {number(max(values))})"


def _change(first: Mapping[int, float], later: Mapping[int, float], kind: InferenceKind) -> str:
    changes = [
        math.log(later[block] / value)
        for block, value in first.items()
        if block in later and value > 0 and 0 < later[block] / value < math.inf
    ]
    if not changes or len(changes) < len(first):
        return ""
    return relative(math.expm1(locate(changes, kind=kind).estimate))


def _seconds(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, (int, float)) else ""
