"""A comparison as values: its rows, what each says, and the answer in one sentence. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hyperbox.harness.model import Lane, Metric
from hyperbox.harness.statistics.shifts import Shift
from hyperbox.harness.verdicts.wording import number, relative_interval
from hyperbox.printing import legible

__all__ = ["ALPHA", "ComparedMetric", "SideComparison", "SideFinding", "comparison_document"]

ALPHA = 0.05
"""Bound of the chance that any row of a comparison is called better without being so."""

_LARGEST_LOG = 709.0  # a ratio beyond fits no float


class SideFinding(StrEnum):
    """What a row says."""

    FIRST_BETTER = "first better"
    SECOND_BETTER = "second better"
    SAME = "the same"
    NOT_SURE = "not sure"
    TOO_FEW = "too few blocks"


@dataclass(frozen=True)
class ComparedMetric:
    """One metric of one arm on both sides.

    `first` and `second` are medians over blocks in the metric's unit. `shift` is second
    against first: log ratio if `ratio`, else in the unit. `identical` says that no block differs,
    `close` that the change is smaller than what the lane can resolve. `p` is adjusted for
    the number of rows.
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
    identical: bool = False
    close: bool = False
    p: float = 1.0

    @property
    def able(self) -> bool:
        """Whether so many blocks can give a sure answer, whatever they are."""
        return self.shift.smallest_p <= ALPHA

    @property
    def finding(self) -> SideFinding:
        """Which side is better, if either surely is."""
        if self.identical:
            return SideFinding.SAME
        if not self.able:
            return SideFinding.TOO_FEW
        if self.p > ALPHA or self.close:
            return SideFinding.NOT_SURE
        lower_second = self.shift.estimate < 0
        second = lower_second if self.metric.better == "lower" else not lower_second
        return SideFinding.SECOND_BETTER if second else SideFinding.FIRST_BETTER

    @property
    def change(self) -> tuple[float, float, float]:
        """Estimate and interval of second against first: relative, or in the unit."""
        shift = self.shift
        found = (shift.estimate, shift.low, shift.high)
        if not self.ratio:
            return found
        estimate, low, high = (math.expm1(min(log, _LARGEST_LOG)) for log in found)
        return estimate, low, high

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
        if self.finding is SideFinding.SAME:
            return "identical"
        if self.finding is SideFinding.TOO_FEW:  # an interval would claim what is not known
            low = high = estimate
        if self.ratio:
            text = relative_interval(estimate, low, high)
            return text[: text.index(" (")] if self.finding is SideFinding.TOO_FEW else text
        if self.finding is SideFinding.TOO_FEW:
            return f"{estimate:+.3g} {self.metric.unit}".removesuffix(" 1")
        return f"{estimate:+.3g} ({number(low)} … {number(high)}) {self.metric.unit}".removesuffix(
            " 1"
        )


@dataclass(frozen=True)
class SideComparison:
    """All rows of a comparison, and what had to be left out, as sentences."""

    first: str
    second: str
    rows: tuple[ComparedMetric, ...]
    remarks: tuple[str, ...]

    def count(self, finding: SideFinding) -> int:
        """Count the rows with a finding."""
        return sum(row.finding is finding for row in self.rows)

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        wins = [
            (self.count(SideFinding.FIRST_BETTER), self.first),
            (self.count(SideFinding.SECOND_BETTER), self.second),
        ]
        wins.sort(key=lambda one: -one[0])
        parts = [f"{name} is better at {count or 'none'}" for count, name in wins]
        if not any(count for count, _ in wins):
            parts = [f"neither {self.first} nor {self.second} is surely better at any"]
        others = (
            (SideFinding.NOT_SURE, "not sure"),
            (SideFinding.SAME, "identical"),
            (SideFinding.TOO_FEW, "without enough blocks to decide"),
        )
        tail = ", ".join(
            f"{self.count(finding)} {'is' if self.count(finding) == 1 else 'are'} {what}"
            for finding, what in others
            if self.count(finding)
        )
        metrics = "1 metric" if len(self.rows) == 1 else f"{len(self.rows)} metrics"
        return f"Of {metrics} {', '.join(parts)}{'; ' if tail else ''}{tail}."

    @property
    def groups(self) -> tuple[tuple[SideFinding, tuple[ComparedMetric, ...]], ...]:
        """The rows by what they say: the side with more wins first, large effects first."""
        sides = [SideFinding.FIRST_BETTER, SideFinding.SECOND_BETTER]
        sides.sort(key=lambda finding: -self.count(finding))
        order = (*sides, SideFinding.NOT_SURE, SideFinding.TOO_FEW, SideFinding.SAME)
        found = []
        for finding in order:
            rows = [row for row in self.rows if row.finding is finding]
            rows.sort(key=lambda row: (not row.ratio, -abs(row.shift.estimate)))
            if rows:
                found.append((finding, tuple(rows)))
        return tuple(found)

    def heading(self, finding: SideFinding) -> str:
        """Return the heading of the rows with a finding."""
        return {
            SideFinding.FIRST_BETTER: f"{self.first} is better",
            SideFinding.SECOND_BETTER: f"{self.second} is better",
            SideFinding.NOT_SURE: "Not sure: the difference may be luck",
            SideFinding.TOO_FEW: "Too few blocks to decide",
            SideFinding.SAME: "Identical",
        }[finding]


def comparison_document(found: SideComparison) -> dict[str, Any]:
    """Return the comparison as JSON-ready values."""
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
                "p_alone": row.shift.p,
                "paired": row.shift.paired,
                "blocks": list(row.shift.n),
                "finding": str(row.finding),
            }
            for row in found.rows
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
