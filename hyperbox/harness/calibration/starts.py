"""How many starts a verdict takes, estimated from the starts that were measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hyperbox.harness.calibration.answers import KnownCell
from hyperbox.harness.model import Gate, Outcome
from hyperbox.harness.statistics.design import LOOKS
from hyperbox.harness.statistics.power import WANTED_POWER
from hyperbox.harness.statistics.sequential import first_decisions
from hyperbox.harness.verdicts.blocks import BrokenMeasurement, decided_blocks
from hyperbox.harness.verdicts.targets import checked_metric, target_of

__all__ = ["needed", "right_by_look"]

_DRAWN = 1000
_SEED = 20251125
_SIDES = {Outcome.PASS: 1, Outcome.FAIL: -1}


def right_by_look(gate: Gate, cell: KnownCell, right: Outcome) -> tuple[float, ...]:
    """Return the share of right verdicts by each planned look, over starts drawn again.

    Blocks are drawn with replacement from those measured, and decided as a run's are.
    What is rarer than one start in as many as were measured, this cannot know. Fewer
    blocks than the first look say nothing.
    """
    try:
        metric = checked_metric(gate, cell.experiment)
        values = np.array([block.value for block in decided_blocks(gate, cell.samples)])
    except BrokenMeasurement:
        return ()
    if values.size < LOOKS[0]:
        return ()
    places = np.random.default_rng(_SEED).integers(values.size, size=(_DRAWN, LOOKS[-1]))
    found = first_decisions(values[places], target_of(gate, metric, cell.cell.lane))
    is_right = found.side == _SIDES[right]
    return tuple(float((is_right & (found.n <= look)).mean()) for look in LOOKS)


def needed(shares: Sequence[float]) -> int | None:
    """Return the first look by which a right verdict is likely enough; None: none is."""
    return next(
        (look for look, share in zip(LOOKS, shares, strict=False) if share >= WANTED_POWER), None
    )
