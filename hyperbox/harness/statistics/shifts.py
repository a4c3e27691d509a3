"""How far one set of blocks lies from another: exact rank statistics without pairs. Pure.

The Mann-Whitney statistic against a shift is the number of pairwise differences beyond it;
their median is the Hodges-Lehmann estimate, and two of them are the ends of an interval
that covers at least at its level, ties included (Hodges and Lehmann 1963; Noether 1967). So
p-value and interval agree, as those of `location` do for paired blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np

from hyperbox.harness.statistics.design import InferenceKind
from hyperbox.harness.statistics.location import locate, p_above, p_below

__all__ = ["Shift", "paired_shift", "rank_sum_tail", "unpaired_shift"]

ALPHA = 0.025
"""Bound of a wrong end on each side of an interval: 95 % and more, two-sided."""


@dataclass(frozen=True)
class Shift:
    """Location of the second set against the first, in the unit of the values.

    `p` is the exact two-sided p-value of "there is no shift"; `level` what the interval is
    worth; `n` the number of blocks in each set; `paired` is how they were compared.
    """

    estimate: float
    low: float
    high: float
    level: float
    p: float
    n: tuple[int, int]
    paired: bool

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that so many blocks can give, whatever they say."""
        return 2 / (2 ** self.n[0] if self.paired else comb(sum(self.n), self.n[0]))


def paired_shift(
    differences: Sequence[float],
    alpha: float = ALPHA,
    kind: InferenceKind = InferenceKind.SIGNED_RANK,
) -> Shift:
    """Locate the differences (second minus first) of blocks that share their starts."""
    found = locate(differences, alpha, kind)
    # A difference of exactly zero speaks for neither side.
    sides = (test(differences, 0.0, limit_counts=False, kind=kind) for test in (p_below, p_above))
    p = min(1.0, 2 * min(sides))
    n = (found.n, found.n)
    return Shift(found.estimate, found.low, found.high, found.level, p, n, paired=True)


def unpaired_shift(first: Sequence[float], second: Sequence[float], alpha: float = ALPHA) -> Shift:
    """Locate the second set against the first; with too few blocks `level` says so.

    Raises
    ------
    ValueError
        If a set is empty or holds a value that is not finite.
    """
    one, two = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if one.size == 0 or two.size == 0 or not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise ValueError("a shift needs at least one value in each set, all finite")
    differences = np.sort(np.subtract.outer(two, one).ravel())
    cut = _critical_value(one.size, two.size, alpha) or 0
    below = int(np.count_nonzero(differences <= 0))
    above = int(np.count_nonzero(differences >= 0))
    return Shift(
        estimate=float(np.median(differences)),
        low=float(differences[cut]),
        high=float(differences[-1 - cut]),
        level=1 - 2 * rank_sum_tail(cut, one.size, two.size),
        p=min(1.0, 2 * rank_sum_tail(min(below, above), one.size, two.size)),
        n=(one.size, two.size),
        paired=False,
    )


def rank_sum_tail(statistic: int, m: int, n: int) -> float:
    """Return P(U <= statistic) for sets of `m` and `n` values under the null."""
    cumulative = _cumulative_counts(min(m, n), max(m, n))
    return cumulative[min(statistic, len(cumulative) - 1)] / cumulative[-1]


def _critical_value(m: int, n: int, alpha: float) -> int | None:
    """Return the largest k with P(U <= k) <= alpha, or None if the sets are too small."""
    cumulative = _cumulative_counts(min(m, n), max(m, n))
    allowed = alpha * cumulative[-1]
    fitting = sum(1 for count in cumulative if count <= allowed)
    return fitting - 1 if fitting else None


@lru_cache(maxsize=64)
def _cumulative_counts(m: int, n: int) -> tuple[int, ...]:
    """Count the orders of m and n values whose U is at most k.

    U has the Gaussian binomial coefficient as generating function: the product over i of
    (1 - q^(n + i)) / (1 - q^i), multiplied and divided out term by term.
    """
    counts = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for k in range(m * n, n + i - 1, -1):
            counts[k] -= counts[k - n - i]
        for k in range(i, m * n + 1):
            counts[k] += counts[k - i]
    cumulative = []
    running = 0
    for count in counts:
        running += count
        cumulative.append(running)
    return tuple(cumulative)
