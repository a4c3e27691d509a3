"""Real runs with known answers: arms that are the same, and planted effects. Pure.

Gates named ``harness.false_alarm.*`` compare an arm with its equal (A/A): the true change
is 0. Gates named ``harness.power.*`` judge a planted effect; if their experiment has a
metric ``planted``, its value for the judged arm is the true relative change (in percent
if its unit is ``%``), else the gate is declared so that PASS means "found".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hyperbox.harness.calibration.rates import Rate
from hyperbox.harness.model import Cell, Experiment, Gate, Outcome, Sample, Verdict
from hyperbox.harness.verdicts.blocks import BrokenMeasurement, decided_blocks
from hyperbox.harness.verdicts.sequential import first_decisions
from hyperbox.harness.verdicts.statistics import ALPHA, LOOK_ALPHA, LOOKS
from hyperbox.harness.verdicts.targets import Target, checked_metric, target_of

__all__ = ["ALARMS", "PLANTED", "Evidence", "Measured", "PlantedEffect", "evidence_of"]

ALARMS = "harness.false_alarm."
"""Gates whose arms are the same begin with this."""

PLANTED = "harness.power."
"""Gates that judge a planted effect begin with this."""

_GROUP = LOOKS[0]


@dataclass(frozen=True)
class Measured:
    """What a run measured in one cell."""

    cell: Cell
    experiment: Experiment
    samples: Sequence[Sample]


@dataclass(frozen=True)
class PlantedEffect:
    """A planted effect and what its gate said.

    `planted` is the true relative change (or difference), None if the run does not say.
    `found` tells whether the verdict is the right one, `covered` whether the interval
    holds the truth (None if either is unknown).
    """

    gate: str
    kernel: str
    lane: str
    planted: float | None
    estimate: float | None
    low: float | None
    high: float | None
    outcome: Outcome
    found: bool
    covered: bool | None


@dataclass(frozen=True)
class Evidence:
    """What one run says about the harness.

    `alarms` counts wrong verdicts among the decided A/A gates. `above` and `below` count
    groups of 8 successive A/A blocks that claim a change up or down at the first look,
    whose bound is `LOOK_ALPHA`. `unknown` names gates that could not be used, and why.
    """

    run: str
    alarms: Rate
    above: Rate
    below: Rate
    planted: tuple[PlantedEffect, ...]
    unknown: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether the counts are compatible with the promise.

        A run has few blocks, so its upper bounds are wide; it speaks against the promise
        only where even the lower bound exceeds it.
        """
        groups = max(self.above.lower, self.below.lower)
        return self.alarms.lower <= 2 * ALPHA and groups <= LOOK_ALPHA

    def document(self) -> dict[str, Any]:
        """Give the evidence as JSON data."""
        rates = {name: getattr(self, name).document() for name in ("alarms", "above", "below")}
        return {**asdict(self), **rates, "kept": self.kept}


def evidence_of(
    run: str, gates: Sequence[Gate], verdicts: Sequence[Verdict], measured: Sequence[Measured]
) -> Evidence:
    """Gather what a run's gates with known answers say."""
    cells = {(c.cell.kernel, c.cell.lane, c.experiment.id): c for c in measured}
    by_id = {gate.id: gate for gate in gates}
    wrong = decided = 0
    sides: list[int] = []
    planted, unknown = [], []
    for verdict in verdicts:
        gate = by_id.get(verdict.gate)
        cell = cells.get((verdict.kernel, verdict.lane, gate.experiment)) if gate else None
        if gate is None or cell is None or not gate.id.startswith((ALARMS, PLANTED)):
            continue
        if verdict.outcome in (Outcome.SKIP, Outcome.ERROR):
            unknown.append(f"{gate.id} on {verdict.kernel}: {verdict.outcome}, {verdict.reason}")
        elif gate.id.startswith(PLANTED):
            planted.append(_planted(gate, cell, verdict))
        elif not gate.is_paired:
            unknown.append(f"{gate.id} on {verdict.kernel}: a level has no known answer")
        else:
            decided += 1
            wrong += _is_wrong(gate, cell, verdict)
            sides += _groups(gate, cell.samples)
    groups = len(sides)
    return Evidence(
        run,
        Rate(wrong, decided),
        Rate(sides.count(1), groups),
        Rate(sides.count(-1), groups),
        tuple(planted),
        tuple(unknown),
    )


def _is_wrong(gate: Gate, cell: Measured, verdict: Verdict) -> bool:
    """Say whether an A/A verdict errs; at a limit of 0 it may claim nothing at all."""
    expected = _expected(gate, cell, 0.0)
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return False
    return expected is None or verdict.outcome is not expected


def _expected(gate: Gate, cell: Measured, change: float) -> Outcome | None:
    """Give the right outcome for a true change; None exactly at a limit."""
    target = target_of(gate, checked_metric(gate, cell.experiment), cell.cell.lane)
    truth = math.log1p(change) if gate.is_ratio else change
    limits = [limit for limit in (target.low, target.high) if limit is not None]
    if any(truth == limit for limit in limits):
        return None
    met = (target.high is None or truth < target.high) and (
        target.low is None or truth > target.low
    )
    return Outcome.PASS if met else Outcome.FAIL


def _groups(gate: Gate, samples: Sequence[Sample]) -> Iterator[int]:
    """Give 1, -1 or 0 for each whole group of A/A blocks: a change up, down, or none."""
    try:
        values = [block.value for block in decided_blocks(gate, samples)]
    except BrokenMeasurement:
        return
    whole = len(values) // _GROUP
    groups = np.array(values[: whole * _GROUP]).reshape(whole, _GROUP)
    if not whole:
        return
    below_zero = Target(low=None, high=0.0, limit_counts=False)
    above_zero = Target(low=0.0, high=None, limit_counts=False)
    down = first_decisions(groups, below_zero).side == 1
    up = first_decisions(groups, above_zero).side == 1
    yield from (int(u) - int(d) for u, d in zip(up, down, strict=True))


def _planted(gate: Gate, cell: Measured, verdict: Verdict) -> PlantedEffect:
    change = _planted_change(gate, cell)
    expected = Outcome.PASS if change is None else _expected(gate, cell, change)
    covered = None
    if change is not None and verdict.low is not None and verdict.high is not None:
        covered = verdict.low <= change <= verdict.high
    return PlantedEffect(
        gate.id,
        verdict.kernel,
        str(verdict.lane),
        change,
        verdict.estimate,
        verdict.low,
        verdict.high,
        verdict.outcome,
        verdict.outcome is expected,
        covered,
    )


def _planted_change(gate: Gate, cell: Measured) -> float | None:
    """Give the median planted change that the judged arm reports."""
    units: Mapping[str, str] = {metric.id: metric.unit for metric in cell.experiment.metrics}
    values = [
        sample.value
        for sample in cell.samples
        if sample.metric == "planted" and sample.arm == gate.arm
    ]
    if not values:
        return None
    return float(np.median(values)) / (100 if units.get("planted") == "%" else 1)
