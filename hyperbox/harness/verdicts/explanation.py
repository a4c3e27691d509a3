"""A verdict in words: its reason, and the remarks that its numbers call for. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hyperbox.harness.model import Gate, Metric, Outcome, Rule
from hyperbox.harness.statistics.design import LOOKS
from hyperbox.harness.statistics.location import Location
from hyperbox.harness.verdicts.targets import limits_of
from hyperbox.harness.verdicts.wording import (
    EXCEEDS_BAND,
    number,
    relative,
    relative_interval,
    relative_range,
    with_unit,
)

__all__ = ["VerdictExplanation"]


@dataclass(frozen=True)
class VerdictExplanation:
    """What a verdict is told from.

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
            return f"{found} lies closer to {limit} than perturbed starts can tell"
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
            remarks.append(f"all {n} perturbed starts gave the same value")
        elif n > 1:
            remarks.append(f"perturbed starts spread from {self._range(smallest, largest)}")
        if measured > n:
            remarks.append(f"decided on the first {n} of {measured} blocks (planned look)")
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
