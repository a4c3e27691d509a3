"""Which kernel, or run, is better at what, by how much, how sure. Pure.

Compared are metrics of an arm that have a better direction, on blocks: log ratios where
all values are positive, else differences. Blocks that share seed, kernel and number had
the same perturbed start and are pairs; others are held against each other unpaired. A side
is called better if its p-value stays below 5 % when all rows are paid for (Holm). Rows whose
number of blocks cannot give such a p-value, whatever was measured, are told and not paid for:
they were ruled out by their number, not by their values (Tarone 1990).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from hyperbox.errors import ConfigError
from hyperbox.harness.model import Experiment, Lane, Metric
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.statistics.multiplicity import holm
from hyperbox.harness.statistics.shifts import Shift, paired_shift, unpaired_shift
from hyperbox.harness.verdicts.wording import legible, number, relative_interval

__all__ = ["Comparison", "Finding", "Row", "compare", "comparison_document"]

ALPHA = 0.05


class Finding(StrEnum):
    """What a row says."""

    FIRST_BETTER = "first better"
    SECOND_BETTER = "second better"
    SAME = "the same"
    NOT_SURE = "not sure"
    TOO_FEW = "too few blocks"


@dataclass(frozen=True)
class Side:
    """One side of the comparison: a run, and the kernel chosen of it (None: each with its own)."""

    run: RunData
    kernel: str | None
    label: str


@dataclass(frozen=True)
class Row:
    """One metric of one arm on both sides.

    `first` and `second` are medians over blocks in the metric's unit. `shift` is second
    against first: log ratio if `ratio`, else in the unit. `p` is Holm-adjusted.
    """

    kernel: str
    experiment: str
    lane: Lane
    arm: str
    metric: Metric
    first: float
    second: float
    shift: Shift
    ratio: bool
    p: float = 1.0

    @property
    def finding(self) -> Finding:
        """Which side is better, if either surely is."""
        if self.shift.low == self.shift.high == 0:
            return Finding.SAME
        if self.shift.smallest_p > ALPHA:
            return Finding.TOO_FEW
        if self.p > ALPHA:
            return Finding.NOT_SURE
        lower_second = self.shift.estimate < 0
        second = lower_second if self.metric.better == "lower" else not lower_second
        return Finding.SECOND_BETTER if second else Finding.FIRST_BETTER

    @property
    def change(self) -> tuple[float, float, float]:
        """Estimate and interval of second against first: relative, or in the unit."""
        shift = self.shift
        found = (shift.estimate, shift.low, shift.high)
        return tuple(map(math.expm1, found)) if self.ratio else found  # type: ignore[return-value]

    @property
    def advantage(self) -> tuple[float, float, float]:
        """Estimate and interval as log ratios that are positive where the second is better."""
        shift = self.shift
        found = (shift.estimate, shift.low, shift.high)
        return found if self.metric.better == "higher" else (-found[0], -found[2], -found[1])

    @property
    def change_text(self) -> str:
        """The change as people read it."""
        estimate, low, high = self.change
        if self.finding is Finding.SAME:
            return "identical"
        if self.finding is Finding.TOO_FEW:  # an interval would feign what is not known
            low = high = estimate
        if self.ratio:
            told = relative_interval(estimate, low, high)
            return told[: told.index(" (")] if self.finding is Finding.TOO_FEW else told
        if self.finding is Finding.TOO_FEW:
            return f"{estimate:+.3g} {self.metric.unit}".removesuffix(" 1")
        return f"{estimate:+.3g} ({number(low)} … {number(high)}) {self.metric.unit}".removesuffix(
            " 1"
        )


@dataclass(frozen=True)
class Comparison:
    """All rows of a comparison, and what had to be left out, as sentences."""

    first: str
    second: str
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]

    def count(self, finding: Finding) -> int:
        """Count the rows with a finding."""
        return sum(row.finding is finding for row in self.rows)

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        wins = [
            (self.count(Finding.FIRST_BETTER), self.first),
            (self.count(Finding.SECOND_BETTER), self.second),
        ]
        wins.sort(key=lambda one: -one[0])
        parts = [f"{name} is better at {count or 'none'}" for count, name in wins]
        if not any(count for count, _ in wins):
            parts = [f"neither {self.first} nor {self.second} is surely better at any"]
        others = (
            (Finding.NOT_SURE, "not sure"),
            (Finding.SAME, "identical"),
            (Finding.TOO_FEW, "without enough blocks to tell"),
        )
        tail = ", ".join(
            f"{self.count(finding)} {'is' if self.count(finding) == 1 else 'are'} {what}"
            for finding, what in others
            if self.count(finding)
        )
        metrics = "1 metric" if len(self.rows) == 1 else f"{len(self.rows)} metrics"
        return f"Of {metrics} {', '.join(parts)}{'; ' if tail else ''}{tail}."

    @property
    def groups(self) -> tuple[tuple[Finding, tuple[Row, ...]], ...]:
        """The rows by what they say: the side with more wins first, large effects first."""
        sides = [Finding.FIRST_BETTER, Finding.SECOND_BETTER]
        sides.sort(key=lambda finding: -self.count(finding))
        order = (*sides, Finding.NOT_SURE, Finding.TOO_FEW, Finding.SAME)
        found = []
        for finding in order:
            rows = [row for row in self.rows if row.finding is finding]
            rows.sort(key=lambda row: (not row.ratio, -abs(row.shift.estimate)))
            if rows:
                found.append((finding, tuple(rows)))
        return tuple(found)

    def heading(self, finding: Finding) -> str:
        """Give the heading of the rows with a finding."""
        return {
            Finding.FIRST_BETTER: f"{self.first} is better",
            Finding.SECOND_BETTER: f"{self.second} is better",
            Finding.NOT_SURE: "Not sure: the difference may be luck",
            Finding.TOO_FEW: "Too few blocks to tell",
            Finding.SAME: "Identical",
        }[finding]


def compare(
    first: RunData, second: RunData | None = None, kernels: Sequence[str] = ()
) -> Comparison:
    """Compare two kernels of a run, two runs kernel by kernel, or a kernel of each.

    Raises
    ------
    ConfigError
        If the sides measured nothing in the same way: other experiments, other lane, no
        kernel in common.
    """
    one, two = _sides(first, second, kernels)
    pairs = list(_pairs(one, two))
    damage = [f"damage: {problem}" for run in (one.run, two.run) for problem in run.problems]
    remarks = [] if pairs else [_why_incomparable(one, two)]
    rows: list[Row] = []
    for left, right in pairs:
        if left.experiment != right.experiment and not _same_measurement(
            left.experiment, right.experiment
        ):
            remarks.append(f"{left.cell.experiment} is not the same experiment on both sides")
            continue
        rows += _rows(left, right, shared_starts=one.run.seed == two.run.seed)
    if not rows:
        why = "; ".join(dict.fromkeys(remarks)) or "no metric was measured on both sides"
        hint = f"{len(damage)} damaged: `hyperbox report RUN` tells" if damage else ""
        raise ConfigError(f"cannot compare {one.label} with {two.label}: {why}", hint=hint)
    remarks = [*damage, *remarks]
    if any(row.lane is Lane.EXACT for row in rows):
        remarks.append("exact lane: compares work in instructions, not hardware speed")
    return Comparison(one.label, two.label, _paid_for(rows), tuple(dict.fromkeys(remarks)))


def _paid_for(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Adjust the p-values of the rows that can be sure for their number."""
    able = [row for row in rows if row.shift.smallest_p <= ALPHA]
    adjusted = dict(zip(map(id, able), holm([row.shift.p for row in able]), strict=True))
    return tuple(replace(row, p=adjusted.get(id(row), 1.0)) for row in rows)


def comparison_document(found: Comparison) -> dict[str, Any]:
    """Give the comparison as JSON-ready values."""
    return {
        "schema": 1,
        "first": found.first,
        "second": found.second,
        "sentence": legible(found.sentence),
        "remarks": list(found.remarks),
        "rows": [
            {
                "kernel": row.kernel,
                "experiment": row.experiment,
                "lane": str(row.lane),
                "arm": row.arm,
                "metric": row.metric.id,
                "unit": row.metric.unit,
                "better": row.metric.better,
                "first_median": row.first,
                "second_median": row.second,
                "change": _finite(row.change[0]),
                "low": _finite(row.change[1]),
                "high": _finite(row.change[2]),
                "change_is": "relative" if row.ratio else "difference",
                "level": row.shift.level,
                "p": row.p,
                "paired": row.shift.paired,
                "blocks": list(row.shift.n),
                "finding": str(row.finding),
            }
            for row in found.rows
        ],
    }


def _sides(first: RunData, second: RunData | None, kernels: Sequence[str]) -> tuple[Side, Side]:
    if kernels and len(kernels) != 2:
        raise ConfigError("--kernels takes two kernels", hint="for example --kernels 6.12 7.3")
    if second is None:
        if not kernels:
            raise ConfigError(
                "one run needs two kernels to compare", hint="add --kernels A B, or a second run"
            )
        second = first
    runs = (first, second)
    for run, kernel in zip(runs, kernels, strict=False):
        known = {cell.cell.kernel for cell in run.cells}
        if kernel not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise ConfigError(
                f"{run.run_id} did not measure kernel {kernel}", hint=f"it has {listed}"
            )
    if not kernels:
        names = (first.run_id, second.run_id)
        if names[0] == names[1]:
            names = (str(first.directory), str(second.directory))
        return Side(first, None, names[0]), Side(second, None, names[1])
    labels = kernels
    if first is not second:
        labels = [f"{k} of {run.run_id}" for k, run in zip(kernels, runs, strict=True)]
    return Side(first, kernels[0], labels[0]), Side(second, kernels[1], labels[1])


def _pairs(one: Side, two: Side) -> Iterator[tuple[CellData, CellData]]:
    def key(cell: CellData, side: Side) -> tuple[str, str, Lane]:
        kernel = "" if side.kernel else cell.cell.kernel
        return (cell.cell.experiment, kernel, cell.cell.lane)

    right = {
        key(cell, two): cell for cell in two.run.cells if two.kernel in (None, cell.cell.kernel)
    }
    for cell in one.run.cells:
        if one.kernel in (None, cell.cell.kernel):
            other = right.get(key(cell, one))
            if other is not None:
                yield cell, other


def _why_incomparable(one: Side, two: Side) -> str:
    left, right = one.run.cells, two.run.cells
    if not left or not right:
        return "a run without cells"
    lanes = ({c.cell.lane for c in left}, {c.cell.lane for c in right})
    if not lanes[0] & lanes[1]:
        told = (", ".join(sorted(lane)) for lane in lanes)
        return f"other lanes ({' against '.join(told)}): their numbers mean different things"
    if not {c.cell.experiment for c in left} & {c.cell.experiment for c in right}:
        return "no experiment in common"
    if not {c.cell.kernel for c in left} & {c.cell.kernel for c in right}:
        return "no kernel in common; --kernels A B compares A of the first with B of the second"
    return "no experiment that both measured on one kernel in one lane"


def _same_measurement(left: Experiment, right: Experiment) -> bool:
    """Whether two declarations measure the same, whatever their titles and numbers of blocks."""

    def essence(experiment: Experiment) -> tuple[object, ...]:
        arms = tuple(arm.id for arm in experiment.arms)
        metrics = tuple((m.id, m.unit, m.better) for m in experiment.metrics)
        return (experiment.id, arms, metrics, experiment.program, experiment.prepare)

    return essence(left) == essence(right)


def _rows(left: CellData, right: CellData, *, shared_starts: bool) -> Iterator[Row]:
    same_starts = shared_starts and left.cell.kernel == right.cell.kernel
    one, two = _by_arm_and_metric(left), _by_arm_and_metric(right)
    kernel = left.cell.kernel
    if right.cell.kernel != kernel:
        kernel = f"{kernel} / {right.cell.kernel}"
    for metric in left.experiment.metrics:
        if metric.better not in ("lower", "higher"):
            continue
        for arm in left.experiment.arms:
            first, second = one.get((arm.id, metric.id)), two.get((arm.id, metric.id))
            if first and second:
                shift, ratio = _shift(first, second, paired=same_starts)
                medians = (_median(first), _median(second))
                yield Row(
                    kernel,
                    left.cell.experiment,
                    left.cell.lane,
                    arm.id,
                    metric,
                    *medians,
                    shift,
                    ratio,
                )


def _by_arm_and_metric(cell: CellData) -> dict[tuple[str, str], dict[int, float]]:
    found: dict[tuple[str, str], dict[int, float]] = {}
    for sample in cell.samples:
        found.setdefault((sample.arm, sample.metric), {})[sample.block] = sample.value
    return found


def _shift(
    first: Mapping[int, float], second: Mapping[int, float], *, paired: bool
) -> tuple[Shift, bool]:
    ratio = min(*first.values(), *second.values()) > 0

    def scaled(values: Mapping[int, float], blocks: Sequence[int]) -> list[float]:
        return [math.log(values[b]) if ratio else values[b] for b in blocks]

    shared = sorted(first.keys() & second.keys())
    if paired and shared:
        one, two = scaled(first, shared), scaled(second, shared)
        return paired_shift([b - a for a, b in zip(one, two, strict=True)]), ratio
    return unpaired_shift(scaled(first, list(first)), scaled(second, list(second))), ratio


def _median(values: Mapping[int, float]) -> float:
    ordered = sorted(values.values())
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[-middle - 1]) / 2


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
