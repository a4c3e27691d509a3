"""Exact inference on one value per block: signed ranks and order statistics.

The unit of replication is the block. Both kinds of inference rest on *points* derived
from the values: a claim "the location lies below a limit" is refuted by the points beyond
it, their number has a known distribution at the limit, and the closed interval between
two of the sorted points covers at least at its level, even with ties and discrete values.
So test and interval always agree: a limit is rejected exactly if it lies outside.

*Signed rank*: the points are the Walsh averages ``(x_i + x_j) / 2, i <= j`` (Tukey 1949),
their median is the Hodges-Lehmann estimate (Noether 1967, "Wilcoxon confidence intervals
for location parameters in the discrete case"). Exact where the values lie symmetrically
around the location, as differences of randomly ordered pairs do.

*Sign*: the points are the values themselves, the location is their median. Exact for any
independent values, however skewed; less power where the values are symmetric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from hyperbox.harness.statistics.design import LOOK_ALPHA, InferenceKind, Matrix

__all__ = [
    "Location",
    "critical_value",
    "locate",
    "median",
    "p_above",
    "p_below",
    "points",
    "signed_rank_tail",
    "tail",
    "walsh_averages",
]


@dataclass(frozen=True)
class Location:
    """Estimate of the location with its closed exact interval, in the unit of the values.

    `level` is the two-sided confidence level that the interval really has.
    """

    estimate: float
    low: float
    high: float
    level: float
    n: int


def points(values: Matrix, kind: InferenceKind) -> Matrix:
    """Return the points of each row of values, in no particular order.

    `values` has a row per sample and a column per block.
    """
    if kind is InferenceKind.SIGN:
        return values
    first, second = _pairs(values.shape[-1])
    # Halves first: the sum of two huge values would overflow.
    averages = values[..., first] / 2
    averages += values[..., second] / 2
    averages[..., first == second] = values
    return averages


def median(values: Matrix) -> Matrix:
    """Return the median of each row; halves first, so that huge values do not overflow."""
    ordered = np.sort(values, axis=-1)
    size = ordered.shape[-1]
    middle: Matrix = ordered[..., (size - 1) // 2] / 2 + ordered[..., size // 2] / 2
    return middle


def walsh_averages(values: Sequence[float]) -> Matrix:
    """Return the sorted n (n + 1) / 2 averages of all pairs of values, each with itself too.

    Raises
    ------
    ValueError
        If there are no values or one is not finite.
    """
    return _sorted_points(values, InferenceKind.SIGNED_RANK)


def tail(count: int, n: int, kind: InferenceKind = InferenceKind.SIGNED_RANK) -> float:
    """Return P(at most `count` points lie beyond the location), for `n` values."""
    if count < 0:
        return 0.0
    tails = _tails(n, kind)
    return tails[min(count, len(tails) - 1)]


def signed_rank_tail(statistic: int, n: int) -> float:
    """Return P(T <= statistic) for the signed-rank statistic of `n` values under the null."""
    return tail(statistic, n)


@lru_cache(maxsize=1024)
def critical_value(
    n: int, alpha: float, kind: InferenceKind = InferenceKind.SIGNED_RANK
) -> int | None:
    """Return the largest k with ``tail(k) <= alpha``, or None if `n` is too small for `alpha`."""
    fitting = sum(1 for probability in _tails(n, kind) if probability <= alpha)
    return fitting - 1 if fitting else None


def locate(
    values: Sequence[float],
    alpha: float = LOOK_ALPHA,
    kind: InferenceKind = InferenceKind.SIGNED_RANK,
) -> Location:
    """Estimate the location of `values` with an interval of level at least 1 - 2 alpha.

    With too few values for `alpha` the interval spans all values and `level` says what
    that is worth.
    """
    ordered = _sorted_points(values, kind)
    n = len(values)
    cut = critical_value(n, alpha, kind) or 0
    return Location(
        estimate=float(median(ordered)),
        low=float(ordered[cut]),
        high=float(ordered[-1 - cut]),
        level=max(0.0, 1 - 2 * tail(cut, n, kind)),
        n=n,
    )


def p_below(
    values: Sequence[float],
    limit: float,
    *,
    limit_counts: bool = True,
    kind: InferenceKind = InferenceKind.SIGNED_RANK,
) -> float:
    """Return the exact one-sided p-value of "the location is below `limit`".

    Parameters
    ----------
    limit_counts
        Whether a value at the limit itself speaks for the claim ("at or below").
    """
    found = points(_checked(values), kind)
    beyond = found > limit if limit_counts else found >= limit
    return tail(int(np.count_nonzero(beyond)), len(values), kind)


def p_above(
    values: Sequence[float],
    limit: float,
    *,
    limit_counts: bool = True,
    kind: InferenceKind = InferenceKind.SIGNED_RANK,
) -> float:
    """Return the exact one-sided p-value of "the location is above `limit`".

    See `p_below` for the parameters.
    """
    mirrored = [-value for value in values]
    return p_below(mirrored, -limit, limit_counts=limit_counts, kind=kind)


def _checked(values: Sequence[float]) -> Matrix:
    vector = np.asarray(values, dtype=np.float64)
    if vector.size == 0 or not np.isfinite(vector).all():
        raise ValueError("exact inference needs at least one value, all finite")
    return vector


def _sorted_points(values: Sequence[float], kind: InferenceKind) -> Matrix:
    return np.sort(points(_checked(values), kind))


@lru_cache(maxsize=256)
def _pairs(n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    first, second = np.triu_indices(n)
    return first, second


@lru_cache(maxsize=512)
def _tails(n: int, kind: InferenceKind) -> tuple[float, ...]:
    """Return tail(0), tail(1), ... up to 1, each rounded once from whole numbers."""
    counts = _rank_sum_counts(n) if kind is InferenceKind.SIGNED_RANK else _binomial_counts(n)
    running, probabilities = 0, []
    for count in counts:
        running += count
        probabilities.append(running / 2**n)
    return tuple(probabilities)


def _binomial_counts(n: int) -> list[int]:
    """Count the sign patterns of n values by how many are positive."""
    return [math.comb(n, k) for k in range(n + 1)]


def _rank_sum_counts(n: int) -> list[int]:
    """Count the sign patterns of ranks 1..n by the sum of their positive ranks."""
    counts = [1]
    for rank in range(1, n + 1):
        grown = counts + [0] * rank
        for total, count in enumerate(counts):
            grown[total + rank] += count
        counts = grown
    return counts
