"""What is calibrated: rules, noises, effects, and how many samples of each. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hyperbox.harness.calibration.noise import LEVEL_NOISE, PAIR_NOISE, START_NOISE, Noise
from hyperbox.harness.model import Arm, Experiment, Gate, Lane, Metric, Rule
from hyperbox.harness.statistics.design import LOOKS

__all__ = ["EXPERIMENT", "FULL", "METRIC", "QUICK", "Scenario", "Size", "scenarios"]

METRIC = Metric("cost", "Cost", "us", "lower")
EXPERIMENT = Experiment(
    id="calibration.simulated",
    suite="calibration",
    title="Simulated measurements",
    arms=(Arm("baseline", "Baseline"), Arm("tuned", "Tuned")),
    metrics=(METRIC,),
    program=("true",),
    blocks=LOOKS[-1],
)

PAIR_DEVIATION = 0.01
"""Standard deviation of simulated log ratios: differences of 1 %, as the real lane has."""

_MARGINS: dict[Rule, tuple[float, ...]] = {
    Rule.REDUCES_AT_LEAST: (0.05,),
    Rule.NON_INFERIOR: (0.02,),
    # Wide against the noise, and so narrow that a wrong FAIL may come from both sides.
    Rule.WITHIN: (0.03, 0.0005),
    Rule.AT_MOST: (100.0,),
    Rule.AT_LEAST: (100.0,),
}


@dataclass(frozen=True)
class Size:
    """How large a calibration is, in simulated samples for each purpose.

    `checked` samples are decided one at a time too, `releases` are of 40 verdicts each.

    `effects` are in standard deviations from the limit, the good side positive.
    """

    at_limit: int
    elsewhere: int
    checked: int
    diagnosed: int
    releases: int
    exact: int
    effects: tuple[float, ...]


FULL = Size(
    at_limit=100_000,
    elsewhere=10_000,
    checked=200,
    diagnosed=400,
    releases=10_000,
    exact=20_000,
    effects=(-3, -2, -1.5, -1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3),
)
"""Some minutes on one core."""

QUICK = Size(
    at_limit=20_000,
    elsewhere=500,
    checked=15,
    diagnosed=50,
    releases=2000,
    exact=2000,
    effects=(-2, -1, -0.5, 0, 0.5, 1, 2),
)
"""Less than a minute on one core: for every change of the code."""


@dataclass(frozen=True)
class Scenario:
    """One rule with one margin under one noise in one lane.

    `Lane.KVM` stands for all lanes in the host's time; the exact lane has rules of its own.
    """

    rule: Rule
    margin: float
    noise: Noise
    lane: Lane = Lane.KVM

    @property
    def gate(self) -> Gate:
        """The gate that decides the simulated samples."""
        gate = Gate(
            id=f"calibration.{self.rule}",
            title=f"Calibration of {self.rule}",
            target="a known truth",
            experiment=EXPERIMENT.id,
            metric=METRIC.id,
            rule=self.rule,
            margin=self.margin,
            arm="tuned",
            baseline="baseline",
        )
        return gate if gate.is_paired else Gate(**{**vars(gate), "baseline": None})

    def effects(self, size: Size) -> tuple[float, ...]:
        """Return the effects that mean what they say: within two limits, none beyond the middle."""
        if self.rule is not Rule.WITHIN:
            return size.effects
        middle = self.margin / self.deviation
        return tuple(effect for effect in size.effects if effect <= middle)

    @property
    def deviation(self) -> float:
        """Standard deviation of the decided values."""
        return PAIR_DEVIATION if self.gate.is_paired else 1.0


def scenarios() -> Iterator[Scenario]:
    """Return every rule under every noise that it can meet, the host's time first.

    What is not promised is shown for one rule of each sort: the others err alike.
    """
    for rule, margins in _MARGINS.items():
        table = PAIR_NOISE if rule not in (Rule.AT_MOST, Rule.AT_LEAST) else LEVEL_NOISE
        shown = rule in (Rule.NON_INFERIOR, Rule.AT_MOST)
        for margin in margins:
            for noise in table.values():
                if shown or (noise.promised and not noise.once):
                    yield Scenario(rule, margin, noise)
    for rule in (Rule.NON_INFERIOR, Rule.WITHIN, Rule.AT_MOST):
        for margin in _MARGINS[rule]:
            for noise in START_NOISE.values():
                yield Scenario(rule, margin, noise, Lane.EXACT)
