"""Noise to calibrate with: what measurements look like when they misbehave. Pure.

Noise of single measurements, in run order. Pairs are made of it as an experiment makes
them: two successive measurements, arms in random order, so that a constant effect leaves
their differences symmetric whatever the noise does over time. Levels are measured one a
block and have no such protection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import norm

__all__ = ["LEVEL_NOISE", "PAIR_NOISE", "Noise"]

Matrix = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Matrix]

_PILOT = 1 << 16  # rows that measure a noise before it is used
_PILOT_SEED = 20240229
_LONGEST = 32


@dataclass(frozen=True)
class Noise:
    """Noise of the decided values (differences or levels), per block.

    `draw(rng, rows, blocks)` gives values whose true location is 0 and whose standard
    deviation is 1. `promised` says whether the promised error rates hold for it; the
    others show what happens where the assumption in `title` breaks.
    """

    id: str
    title: str
    promised: bool
    draw: Draw


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
        return float(weights @ norm.cdf(point, means, deviations)) - 0.5

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


def _drifting(reach: float) -> Draw:
    def draw(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
        way = np.linspace(-reach / 2, reach / 2, columns)
        direction = rng.choice((-1.0, 1.0), (rows, 1))
        values: Matrix = rng.standard_normal((rows, columns)) + way * direction
        return values

    return draw


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

    centre = _pilot_centre(draw)
    return lambda rng, rows, columns: draw(rng, rows, columns) - centre


def _pilot_centre(draw: Draw) -> float:
    """Give the pseudo-median, which signed ranks estimate: the median of mean pairs."""
    rng = np.random.default_rng(_PILOT_SEED)
    averages = draw(rng, 16 * _PILOT, 2).mean(axis=1)
    return float(np.median(averages))


def _standardised(draw: Draw) -> Draw:
    rng = np.random.default_rng(_PILOT_SEED)
    deviation = float(draw(rng, _PILOT // _LONGEST, _LONGEST).std())
    return lambda rng, rows, columns: draw(rng, rows, columns) / deviation


def _table(*entries: tuple[str, str, bool, Draw]) -> Mapping[str, Noise]:
    return {
        name: Noise(name, title, promised, _standardised(draw))
        for name, title, promised, draw in entries
    }


PAIR_NOISE: Mapping[str, Noise] = _table(
    ("normal", "normal", True, _pairs(_normal)),
    ("t3", "heavy tails (t with 3 degrees of freedom)", True, _pairs(_t3)),
    ("skewed", "skewed (exponential)", True, _pairs(_skewed)),
    ("spiky", "spikes of 10 deviations in 5 % of measurements", True, _pairs(_spiky)),
    ("bimodal", "two modes, 70 and 30 %", True, _pairs(_bimodal)),
    ("autocorrelated", "AR(1) of 0.8 between measurements", True, _pairs(_autocorrelated(0.8))),
    ("drifting", "machine drifts by 10 deviations", True, _pairs(_drifting(10.0))),
    ("effect_autocorrelated", "the effect itself is AR(1) of 0.3", False, _autocorrelated(0.3)),
    ("effect_drifting", "the effect itself drifts by 2 deviations", False, _drifting(2.0)),
    ("unlike_skewed", "only the tuned arm is skewed", False, _unlike_arms(_skewed, 0.3)),
    ("unlike_bimodal", "only the tuned arm has two modes", False, _unlike_arms(_bimodal, 0.3)),
)
"""Noise of differences between the arms of a block."""

LEVEL_NOISE: Mapping[str, Noise] = _table(
    ("normal", "normal", True, _normal),
    ("t3", "heavy tails (t with 3 degrees of freedom)", True, _t3),
    ("skewed", "skewed (exponential)", True, _skewed),
    ("spiky", "spikes of 10 deviations in 5 % of blocks", True, _spiky),
    ("bimodal", "two modes, 70 and 30 %", True, _bimodal),
    ("autocorrelated", "AR(1) of 0.3 between blocks", False, _autocorrelated(0.3)),
    ("drifting", "machine drifts by 2 deviations", False, _drifting(2.0)),
)
"""Noise of levels, one measurement a block."""
