"""Exact signed-rank inference on one value per block, with planned looks.

The unit of replication is the block. Everything rests on the Walsh averages
``(x_i + x_j) / 2, i <= j``: the signed-rank statistic against a limit is the number of
Walsh averages beyond it (Tukey 1949), their median is the Hodges-Lehmann estimate, and
the closed interval between two of them covers at least at its level even with ties and
discrete values (Noether 1967, "Wilcoxon confidence intervals for location parameters in
the discrete case"). So test and interval always agree: a limit is rejected exactly if it
lies outside the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALPHA",
    "LOOKS",
    "LOOK_ALPHA",
    "Location",
    "critical_value",
    "locate",
    "next_look",
    "p_above",
    "p_below",
    "signed_rank_tail",
    "walsh_averages",
]

LOOKS: tuple[int, ...] = (8, 12, 20, 32)
"""Planned numbers of blocks at which a gate may be decided."""

ALPHA = 0.025
"""Promised bound of a wrong verdict on each side, over all looks together."""

LOOK_ALPHA = ALPHA / len(LOOKS)
"""Bound of each look (Bonferroni over the looks: holds whatever their dependence)."""


@dataclass(frozen=True)
class Location:
    """Hodges-Lehmann estimate with its closed exact interval, in the unit of the values.

    `level` is the two-sided confidence level that the interval really has.
    """

    estimate: float
    low: float
    high: float
    level: float
    n: int


def next_look(n: int) -> int | None:
    """Give the next planned number of blocks after `n`, or None after the last look."""
    return next((look for look in LOOKS if look > n), None)


def walsh_averages(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Give the sorted n (n + 1) / 2 averages of all pairs of values, each with itself too.

    Raises
    ------
    ValueError
        If there are no values or one is not finite.
    """
    vector = np.asarray(values, dtype=np.float64)
    if vector.size == 0 or not np.isfinite(vector).all():
        raise ValueError("signed ranks need at least one value, all finite")
    first, second = np.triu_indices(vector.size)
    # Halves first: the sum of two huge values would overflow.
    averages = vector[first] / 2 + vector[second] / 2
    averages[first == second] = vector
    averages.sort()
    return averages


def signed_rank_tail(statistic: int, n: int) -> float:
    """Give P(T <= statistic) for the signed-rank statistic of `n` values under the null."""
    if statistic < 0:
        return 0.0
    cumulative = _cumulative_counts(n)
    return float(cumulative[min(statistic, len(cumulative) - 1)] / cumulative[-1])


def critical_value(n: int, alpha: float) -> int | None:
    """Give the largest k with P(T <= k) <= alpha, or None if `n` is too small for `alpha`."""
    allowed = alpha * 2**n
    fitting = sum(1 for count in _cumulative_counts(n) if count <= allowed)
    return fitting - 1 if fitting else None


def locate(values: Sequence[float], alpha: float = LOOK_ALPHA) -> Location:
    """Estimate the location of `values` with an interval of level at least 1 - 2 alpha.

    With too few values for `alpha` the interval spans all values and `level` says what
    that is worth.
    """
    averages = walsh_averages(values)
    n = len(values)
    cut = critical_value(n, alpha) or 0
    return Location(
        estimate=_median(averages),
        low=float(averages[cut]),
        high=float(averages[-1 - cut]),
        level=1 - 2 * signed_rank_tail(cut, n),
        n=n,
    )


def p_below(values: Sequence[float], limit: float, *, limit_counts: bool = True) -> float:
    """Give the exact one-sided p-value of "the location is below `limit`".

    Parameters
    ----------
    limit_counts
        Whether a value at the limit itself speaks for the claim ("at or below").
    """
    averages = walsh_averages(values)
    beyond = averages > limit if limit_counts else averages >= limit
    return signed_rank_tail(int(np.count_nonzero(beyond)), len(values))


def p_above(values: Sequence[float], limit: float, *, limit_counts: bool = True) -> float:
    """Give the exact one-sided p-value of "the location is above `limit`".

    See `p_below` for the parameters.
    """
    return p_below([-value for value in values], -limit, limit_counts=limit_counts)


def _median(ordered: npt.NDArray[np.float64]) -> float:
    """Give the median of sorted values without overflow (numpy's adds the middle two)."""
    low, high = ordered[(ordered.size - 1) // 2], ordered[ordered.size // 2]
    return float(low if low == high else low / 2 + high / 2)


@lru_cache(maxsize=256)
def _cumulative_counts(n: int) -> tuple[int, ...]:
    """Count the sign patterns of ranks 1..n whose positive ranks sum to at most k."""
    counts = [1]
    for rank in range(1, n + 1):
        grown = counts + [0] * rank
        for total, count in enumerate(counts):
            grown[total + rank] += count
        counts = grown
    running = 0
    cumulative = []
    for count in counts:
        running += count
        cumulative.append(running)
    return tuple(cumulative)
