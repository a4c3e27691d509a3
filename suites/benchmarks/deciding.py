"""What verdicts cost: ten thousand cells of 32 blocks, on one core."""

from __future__ import annotations

import random
import time

from hyperbox.harness.calibration.grid import EXPERIMENT, METRIC, QUICK, Scenario
from hyperbox.harness.calibration.noise import LEVEL_NOISE, PAIR_NOISE
from hyperbox.harness.calibration.simulation import row
from hyperbox.harness.model import Lane, Rule, Sample
from hyperbox.harness.statistics.design import LOOKS
from hyperbox.harness.verdicts.gates import decide

_CELLS = 10_000
_DISTINCT = 250  # cells are drawn once and decided again: drawing is not what is measured
_SEED = 7


class Deciding:
    """CPU seconds of deciding one gate on each of ten thousand cells."""

    params = ("non_inferior", "within", "at_most")
    param_names = ("rule",)
    timeout = 600
    unit = "CPU seconds"

    def track_cells(self, rule: str) -> float:
        """Decide cells near their limit, which need all looks; the target is under 30 s."""
        chosen = Rule(rule)
        level = chosen is Rule.AT_MOST
        noise = (LEVEL_NOISE if level else PAIR_NOISE)["normal"]
        gate = Scenario(chosen, 100.0 if level else 0.02, noise).gate
        cells = [_cell(place, level=level) for place in range(_DISTINCT)]
        before = time.process_time()
        for _ in range(_CELLS // _DISTINCT):
            for samples in cells:
                decide(gate, EXPERIMENT, "6.12", Lane.EXACT, samples)
        return time.process_time() - before


class Calibrating:
    """CPU seconds of one row of the quick calibration."""

    timeout = 600
    unit = "CPU seconds"

    def track_quick_row(self) -> float:
        """Return the cost of one of the 92 rows; the target is less than a second."""
        before = time.process_time()
        row(Scenario(Rule.NON_INFERIOR, 0.02, PAIR_NOISE["normal"]), QUICK, _SEED)
        return time.process_time() - before


def _cell(place: int, *, level: bool) -> list[Sample]:
    dice = random.Random(_SEED + place)  # noqa: S311 - not a secret
    samples = []
    for block in range(LOOKS[-1]):
        base = 100.0 if level else 1000.0 * dice.lognormvariate(0, 0.02)
        tuned = base * 1.018 * dice.lognormvariate(0, 0.02) if not level else dice.gauss(100, 1)
        if not level:
            samples.append(Sample(block, block % 2, "baseline", METRIC.id, base))
        samples.append(Sample(block, 1 - block % 2, "tuned", METRIC.id, tuned))
    return samples
