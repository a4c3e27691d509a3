"""What is right where the truth is known, and what is said there. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hyperbox.harness.model import Cell, Experiment, Gate, Outcome, Sample
from hyperbox.harness.statistics.design import LOOKS, Target
from hyperbox.harness.statistics.sequential import first_decisions
from hyperbox.harness.verdicts.blocks import BrokenMeasurement, decided_blocks
from hyperbox.harness.verdicts.gates import decide
from hyperbox.harness.verdicts.targets import checked_metric, target_of

__all__ = [
    "ALARMS",
    "PLANTED",
    "Checks",
    "KnownCell",
    "checked",
    "claims_at_first_look",
    "expected",
    "known_change",
]

ALARMS = "harness.false_alarm."
"""Gates whose arms are the same begin with this."""

PLANTED = "harness.power."
"""Gates that judge a planted effect begin with this."""

_GROUP = LOOKS[0]


@dataclass(frozen=True)
class KnownCell:
    """What a run measured in one cell."""

    cell: Cell
    experiment: Experiment
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Checks:
    """Verdicts on one pair of arms under several targets, by the right answer."""

    passes_expected: int = 0
    wrong_fails: int = 0
    fails_expected: int = 0
    wrong_passes: int = 0


def known_change(gate: Gate, cell: KnownCell) -> float | None:
    """Return the true change between the arms of a gate: 0 for equals, None if unknown.

    A planted one is the median of what the judged arm reports.
    """
    if gate.id.startswith(ALARMS):
        return 0.0
    units: Mapping[str, str] = {metric.id: metric.unit for metric in cell.experiment.metrics}
    values = [
        sample.value
        for sample in cell.samples
        if sample.metric == "planted" and sample.arm == gate.arm
    ]
    if not values:
        return None
    return float(np.median(values)) / (100 if units.get("planted") == "%" else 1)


def expected(gate: Gate, cell: KnownCell, change: float) -> Outcome | None:
    """Return the right outcome for a true change; None exactly at a limit."""
    target = target_of(gate, checked_metric(gate, cell.experiment), cell.cell.lane)
    truth = math.log1p(change) if gate.is_ratio else change
    limits = [limit for limit in (target.low, target.high) if limit is not None]
    if any(truth == limit for limit in limits):
        return None
    met = (target.high is None or truth < target.high) and (
        target.low is None or truth > target.low
    )
    return Outcome.PASS if met else Outcome.FAIL


def checked(gate: Gate, cell: KnownCell, known: Iterable[Gate]) -> Checks:
    """Hold the arms of `gate` against the targets of all known gates of its metric."""
    change = known_change(gate, cell)
    if change is None or not gate.is_paired:
        return Checks()
    passes = fails = wrong_passes = wrong_fails = 0
    for other in known:
        if (other.experiment, other.metric, other.scale) != (
            gate.experiment,
            gate.metric,
            gate.scale,
        ) or not other.is_paired:
            continue
        target = replace(other, arm=gate.arm, baseline=gate.baseline)
        right = expected(target, cell, change)
        said = decide(target, cell.experiment, cell.cell.kernel, cell.cell.lane, cell.samples)
        passes += right is Outcome.PASS
        fails += right is Outcome.FAIL
        wrong_fails += right is Outcome.PASS and said.outcome is Outcome.FAIL
        wrong_passes += right is Outcome.FAIL and said.outcome is Outcome.PASS
    return Checks(passes, wrong_fails, fails, wrong_passes)


def claims_at_first_look(gate: Gate, samples: Sequence[Sample]) -> list[int]:
    """Return 1, -1 or 0 for each whole group of A/A blocks: a change up, down, or none."""
    try:
        values = [block.value for block in decided_blocks(gate, samples)]
    except BrokenMeasurement:
        return []
    whole = len(values) // _GROUP
    if not whole:
        return []
    groups = np.array(values[: whole * _GROUP]).reshape(whole, _GROUP)
    below_zero = Target(low=None, high=0.0, limit_counts=False)
    above_zero = Target(low=0.0, high=None, limit_counts=False)
    down = first_decisions(groups, below_zero).side == 1
    up = first_decisions(groups, above_zero).side == 1
    return [int(u) - int(d) for u, d in zip(up, down, strict=True)]
