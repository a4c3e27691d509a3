"""Noise to calibrate with: what measurements look like when they misbehave. Pure.

Three things make blocks differ, and each asks for a truth of its own:

*The machine.* Noise of single measurements, in run order. Pairs are made of it as an
experiment makes them: two successive measurements, arms in random order, so that a
constant effect leaves their differences symmetric whatever the machine does over time.
If one arm alone is skewed or has two modes, they are not; the truth is their median.
*The effect.* It may drift over a run or remember its last block. A verdict is then on the
effect in the blocks measured (the mean of their true effects is 0 at every look); a
verdict for all time cannot be had from one run, and "lasting" noise shows by how much.
`SLOW` puts the same noise of the machine and of the effect side by side.
*The start* (exact lane). Each block's start is drawn by itself, so blocks are independent,
but the effect may differ from start to start in any shape. The truth is its median.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr

from hyperbox.harness.statistics.design import LOOKS

__all__ = ["LEVEL_NOISE", "PAIR_NOISE", "SLOW", "START_NOISE", "Noise"]

Matrix = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Matrix]

_PILOT = 1 << 16  # rows that measure a noise before it is used
_PILOT_SEED = 20240229
_MEDIAN_PILOT = 1 << 20


@dataclass(frozen=True)
class Noise:
    """Noise of the decided values (differences or levels), per block.

    `draw(rng, rows, blocks)` gives values whose true location is 0 and whose standard
    deviation is 1. `promised` says whether the promised error rates hold for it; the
    others show what happens where the assumption in `title` breaks. `once` keeps it to one
    rule of each sort: the others err alike.
    """

    id: str
    title: str
    promised: bool
    draw: Draw
    once: bool = False


def _mixture(*parts: tuple[float, float, float]) -> Draw:
    """Mix normal distributions given as (weight, mean, deviation); the median becomes 0."""
    weights, means, deviations = (np.array(column) for column in zip(*parts, strict=True))
    shift = _median(weights, means, deviations)

    def draw(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
        chosen = rng.choice(len(weights), size=(rows, columns), p=weights)
        drawn: Matrix = rng.normal(means[chosen], deviations[chosen]) - shift
        return drawn

    return draw


def _median(weights: Matrix, means: Matrix, deviations: Matrix) -> float:
    def above(point: float) -> float:
        return float(weights @ ndtr((point - means) / deviations)) - 0.5

    reach = float(np.abs(means).max() + 10 * deviations.max())
    return float(brentq(above, -reach, reach, xtol=1e-12))


def _normal(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
    return rng.standard_normal((rows, columns))


def _t3(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
    return rng.standard_t(3, (rows, columns))


def _skewed(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
    return rng.exponential(size=(rows, columns)) - math.log(2)


def _autocorrelated(strength: float) -> Draw:
    def draw(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
        values = rng.standard_normal((rows, columns))
        fresh = math.sqrt(1 - strength**2)
        for column in range(1, columns):
            values[:, column] = strength * values[:, column - 1] + fresh * values[:, column]
        return values  # in place: each column is its own fresh noise until then

    return draw


def _in_blocks_measured(effect: Draw) -> Draw:
    """Add noise to an effect whose mean over the blocks measured is 0 at every look.

    The effect starts anew after each look: so the truth lies at the limit at all of them,
    where errors are most likely.
    """

    def draw(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
        values = rng.standard_normal((rows, columns))
        for start, end in itertools.pairwise((0, *LOOKS)):
            if start >= columns:
                break
            part = effect(rng, rows, end - start)
            part -= part.mean(axis=1, keepdims=True)
            values[:, start:end] += part[:, : columns - start]
        return values

    return draw


def _trend(reach: float) -> Draw:
    def draw(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
        way = np.linspace(-reach / 2, reach / 2, columns)
        trend: Matrix = way * rng.choice((-1.0, 1.0), (rows, 1))
        return trend

    return draw


def _drifting(reach: float) -> Draw:
    trend = _trend(reach)
    return lambda rng, rows, columns: _normal(rng, rows, columns) + trend(rng, rows, columns)


_spiky = _mixture((0.95, 0.0, 1.0), (0.05, 10.0, 3.0))
_bimodal = _mixture((0.7, 0.0, 0.3), (0.3, 3.0, 0.3))


def _pairs(measured: Draw) -> Draw:
    """Take differences of successive measurements, tuned minus baseline, in random order."""

    def draw(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
        values = measured(rng, rows, 2 * columns)
        order = rng.choice((-1.0, 1.0), (rows, columns))
        differences: Matrix = order * (values[:, 1::2] - values[:, ::2])
        return differences

    return draw


def _unlike_arms(tuned: Draw, deviation: float) -> Draw:
    """Take differences of arms with noise of different shape: they lie asymmetrically."""

    def draw(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
        baseline = deviation * rng.standard_normal((rows, columns))
        differences: Matrix = tuned(rng, rows, columns) - baseline
        return differences

    centre = float(np.median(draw(np.random.default_rng(_PILOT_SEED), _MEDIAN_PILOT, 1)))
    return lambda rng, rows, columns: draw(rng, rows, columns) - centre


def _standardised(draw: Draw) -> Draw:
    rng = np.random.default_rng(_PILOT_SEED)
    deviation = float(draw(rng, _PILOT // LOOKS[-1], LOOKS[-1]).std())
    return lambda rng, rows, columns: draw(rng, rows, columns) / deviation


def _table(*entries: tuple[str, str, bool, Draw]) -> Mapping[str, Noise]:
    return {
        name: Noise(name, title, promised, _standardised(draw), name in _ONCE)
        for name, title, promised, draw in entries
    }


SLOW: Mapping[str, tuple[str, str, str]] = {
    "AR(1) of 0.3": (
        "autocorrelated_mild",
        "effect_ar_mild",
        "lasting_autocorrelated",
    ),
    "AR(1) of 0.8": (
        "autocorrelated",
        "effect_autocorrelated",
        "lasting_ar_strong",
    ),
    "drift by 2 deviations": ("drifting_mild", "effect_drifting", "lasting_drifting"),
    "drift by 10 deviations": (
        "drifting",
        "effect_drift_strong",
        "lasting_drift_strong",
    ),
}
"""What is slow -> noises that are so: the machine, the effect judged for the blocks measured,
and the effect judged for all time."""

_ONCE = (
    "autocorrelated_mild",
    "drifting_mild",
    "effect_ar_mild",
    "effect_drift_strong",
    *(lasting for _, _, lasting in SLOW.values()),
)


def _measured(name: str, what: str, effect: Draw) -> tuple[str, str, bool, Draw]:
    return name, f"{what}; judged for the blocks measured", True, _in_blocks_measured(effect)


def _lasting(name: str, what: str, effect: Draw) -> tuple[str, str, bool, Draw]:
    return name, f"{what}; judged for all time", False, effect


_AR = "the effect is AR(1) of {}".format
_DRIFT = "the effect drifts by {} deviations".format
_EACH_LOOK = "the effect drifts by {} deviations from look to look".format

_EFFECTS = (
    _measured("effect_autocorrelated", _AR(0.8), _autocorrelated(0.8)),
    _measured("effect_ar_mild", _AR(0.3), _autocorrelated(0.3)),
    _measured("effect_drifting", _EACH_LOOK(2), _trend(2.0)),
    _measured("effect_drift_strong", _EACH_LOOK(10), _trend(10.0)),
    _lasting("lasting_autocorrelated", _AR(0.3), _autocorrelated(0.3)),
    _lasting("lasting_ar_strong", _AR(0.8), _autocorrelated(0.8)),
    _lasting("lasting_drifting", _DRIFT(2), _drifting(2.0)),
    _lasting("lasting_drift_strong", _DRIFT(10), _drifting(10.0)),
)

START_NOISE: Mapping[str, Noise] = _table(
    ("normal", "normal", True, _normal),
    ("t3", "heavy tails (t with 3 degrees of freedom)", True, _t3),
    ("skewed", "skewed (exponential)", True, _skewed),
    ("spiky", "spikes of 10 deviations in 5 % of blocks", True, _spiky),
    ("bimodal", "two modes, 70 and 30 %", True, _bimodal),
)
"""Noise of independent blocks, levels or differences: their median is 0, in any shape."""

PAIR_NOISE: Mapping[str, Noise] = _table(
    ("normal", "normal", True, _pairs(_normal)),
    ("t3", "heavy tails (t with 3 degrees of freedom)", True, _pairs(_t3)),
    ("skewed", "skewed (exponential)", True, _pairs(_skewed)),
    ("spiky", "spikes of 10 deviations in 5 % of measurements", True, _pairs(_spiky)),
    ("bimodal", "two modes, 70 and 30 %", True, _pairs(_bimodal)),
    ("autocorrelated", "the machine is AR(1) of 0.8", True, _pairs(_autocorrelated(0.8))),
    ("autocorrelated_mild", "the machine is AR(1) of 0.3", True, _pairs(_autocorrelated(0.3))),
    ("drifting", "the machine drifts by 10 deviations", True, _pairs(_drifting(10.0))),
    ("drifting_mild", "the machine drifts by 2 deviations", True, _pairs(_drifting(2.0))),
    *_EFFECTS,
    ("unlike_skewed", "only the tuned arm is skewed", True, _unlike_arms(_skewed, 0.3)),
    ("unlike_bimodal", "only the tuned arm has two modes", True, _unlike_arms(_bimodal, 0.3)),
)
"""Noise of differences between the arms of a block, measured in the host's time."""

LEVEL_NOISE: Mapping[str, Noise] = {**START_NOISE, **_table(*_EFFECTS)}
"""Noise of levels, one measurement a block, measured in the host's time."""
