"""A verdict in words: its reason, and the remarks that its numbers call for. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hyperbox.harness.model import Gate, Metric, Outcome, Rule, Verdict
from hyperbox.harness.statistics.design import LOOKS
from hyperbox.harness.statistics.location import Location
from hyperbox.harness.verdicts.diagnosis import UNDERPOWERED
from hyperbox.harness.verdicts.targets import limits_of
from hyperbox.harness.verdicts.wording import (
    EXCEEDS_BAND,
    number,
    relative,
    relative_interval,
    relative_range,
    with_unit,
)

__all__ = ["VerdictExplanation", "summary_remarks"]

_SAME = "perturbed starts gave the same value"
_SPREAD = "perturbed starts spread from"
_LOOK = "(planned look)"


def summary_remarks(verdict: Verdict) -> tuple[str, ...]:
    """Return the remarks that a reader of many verdicts needs; the details have all of them.

    The spread of starts and the look that decided are seen in the cell's figure and numbers.
    Power is a remark on what was not decided: a verdict that came did not want for it.
    """
    decided = verdict.outcome in (Outcome.PASS, Outcome.FAIL)
    return tuple(
        remark
        for remark in verdict.remarks
        if not remark.startswith(_SPREAD)
        and not remark.endswith((_SAME, _LOOK))
        and not (decided and remark.startswith(UNDERPOWERED))
    )


@dataclass(frozen=True)
class VerdictExplanation:
    """What the text of a verdict is made of.

    `shown` and `spread` (smallest and largest block) are in the verdict's terms. `leaning`
    is what the interval alone says. Where that is not the outcome, `against` counts the
    single blocks that say otherwise, or is None: the exact lane's starts spread too far.
    """

    gate: Gate
    metric: Metric
    outcome: Outcome
    shown: Location
    spread: tuple[float, float]
    leaning: Outcome
    against: int | None = None

    def reason(self) -> str:
        """Say why the outcome is what it is, in one line."""
        shown, found, limit = self.shown, self._interval(), self._limit()
        if shown.n < LOOKS[0]:
            return f"{shown.n} of the {LOOKS[0]} blocks that a verdict needs; so far {found}"
        withheld = self.leaning is not self.outcome
        if withheld and self.against is None:
            return f"{found} lies closer to {limit} than perturbed starts can resolve"
        if self.gate.rule is Rule.WITHIN:
            sides = {Outcome.PASS: "lies wholly within", Outcome.FAIL: "lies wholly outside of"}
            said = f"{found} {sides.get(self.leaning, 'spans a limit of')} {limit}"
        else:
            sides = {
                Outcome.PASS: "lies wholly on the good side of",
                Outcome.FAIL: "lies wholly on the wrong side of",
            }
            said = f"{found} {sides.get(self.leaning, 'spans')} {limit}"
        if withheld:
            return f"{said}, but {self.against} of {shown.n} single blocks do not: too many"
        return said

    def remarks(self, measured: int) -> tuple[str, ...]:
        """Return the remarks on the estimate and the spread of `measured` blocks."""
        remarks = []
        if self.outcome is Outcome.PASS and self._exceeds_band():
            remarks.append(EXCEEDS_BAND)
        n, (smallest, largest) = self.shown.n, self.spread
        if n > 1 and smallest == largest:
            remarks.append(f"all {n} {_SAME}")
        elif n > 1:
            remarks.append(f"{_SPREAD} {self._range(smallest, largest)}")
        if measured > n:
            remarks.append(f"decided on the first {n} of {measured} blocks {_LOOK}")
        return tuple(remarks)

    def _value(self, value: float) -> str:
        return relative(value) if self.gate.is_ratio else with_unit(value, self.metric.unit)

    def _range(self, low: float, high: float) -> str:
        if self.gate.is_ratio:
            return relative_range(low, high)
        return f"{self._value(low)} to {self._value(high)}"

    def _interval(self) -> str:
        shown = self.shown
        if self.gate.is_ratio:
            return relative_interval(shown.estimate, shown.low, shown.high)
        return f"{self._value(shown.estimate)} ({number(shown.low)} … {number(shown.high)})"

    def _limit(self) -> str:
        low, high = limits_of(self.gate, self.metric)
        edges = [self._value(edge) for edge in (low, high) if edge is not None]
        return " … ".join(edges) if len(edges) > 1 else f"the limit {edges[0]}"

    def _exceeds_band(self) -> bool:
        band = self.gate.band_upper
        if band is None or not math.isfinite(self.shown.estimate):
            return False
        return self.gate.rule is Rule.REDUCES_AT_LEAST and -self.shown.estimate > band
