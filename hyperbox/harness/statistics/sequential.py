"""Planned looks at many samples at once: which look decides, and how. Pure, vectorised.

Gates are decided and calibrated by this one function, so that what is calibrated is what
decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyperbox.harness.statistics.design import ALPHA, LOOKS, Matrix, Target
from hyperbox.harness.statistics.location import critical_value, median, p_above, p_below, points

__all__ = [
    "Decisions",
    "alpha_at",
    "first_decisions",
    "p_met",
    "p_missed",
    "spread_of",
    "through_all_looks",
]

_CHUNK = 2048  # samples at a time: 2048 x 528 Walsh averages are 8 MiB
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Decisions:
    """One entry per sample.

    `side` is 1 where the target is met (PASS), -1 where it is missed (FAIL), 0 where
    nothing is decided. `n` is the number of blocks of the look that decided; without a
    decision of the last look reached, or all blocks before the first look.
    """

    side: npt.NDArray[np.int8]
    n: npt.NDArray[np.int64]


def first_decisions(values: Matrix, target: Target) -> Decisions:
    """Give the first look that decides, for each row of values (a column per block).

    A location wholly on the good side of the limits is met, wholly on the bad side of
    one of them missed.
    """
    rows, blocks = values.shape
    side = np.zeros(rows, dtype=np.int8)
    used = np.full(rows, blocks, dtype=np.int64)
    for look, alpha in zip(LOOKS, target.alphas, strict=True):
        if look > blocks:
            break
        open_rows = np.flatnonzero(side == 0)
        used[open_rows] = look
        cut = critical_value(look, alpha, target.kind)
        if cut is None:
            continue
        for start in range(0, open_rows.size, _CHUNK):
            chunk = open_rows[start : start + _CHUNK]
            side[chunk] = _look(values[chunk, :look], target, cut)
    return Decisions(side, used)


def p_met(values: Sequence[float], target: Target) -> float:
    """Give the p-value of "the target is met" without regard to earlier looks."""
    counts, kind = target.limit_counts, target.kind
    found = []
    if target.high is not None:
        found.append(p_below(values, target.high, limit_counts=counts, kind=kind))
    if target.low is not None:
        found.append(p_above(values, target.low, limit_counts=counts, kind=kind))
    return max(found)


def p_missed(values: Sequence[float], target: Target) -> float:
    """Give the p-value of "the target is missed", of the worse side if there are two."""
    counts, kind = not target.limit_counts, target.kind
    found = []
    if target.high is not None:
        found.append(p_above(values, target.high, limit_counts=counts, kind=kind))
    if target.low is not None:
        found.append(p_below(values, target.low, limit_counts=counts, kind=kind))
    return min(found)


def alpha_at(n: int, target: Target) -> float:
    """Give the bound of the look at `n` blocks (of the first look before it)."""
    reached = sum(1 for look in LOOKS if look <= n)
    return target.alphas[max(0, reached - 1)]


def through_all_looks(values: Sequence[float], target: Target) -> tuple[float, float]:
    """Give p-values of "met" and "missed" that allow for having looked several times.

    They are at most `ALPHA` exactly if a look so far decides (leaving out what the exact
    lane refuses), so they may be held against any smaller bound, such as one shared by
    many gates.
    """
    best_met = best_missed = 1.0
    for look, alpha in zip(LOOKS, target.alphas, strict=True):
        if look <= len(values):
            seen = values[:look]
            best_met = min(best_met, p_met(seen, target) * ALPHA / alpha)
            best_missed = min(best_missed, p_missed(seen, target) * ALPHA / alpha)
    return best_met, best_missed


def spread_of(values: Matrix) -> Matrix:
    """Give the spread of each row: its median absolute deviation as a standard deviation."""
    centre = median(values)[..., np.newaxis]
    spread: Matrix = _MAD_TO_DEVIATION * median(np.abs(values - centre))
    return spread


def _look(values: Matrix, target: Target, cut: int) -> npt.NDArray[np.int8]:
    """Decide each row at one look."""
    found = points(values, target.kind)
    side = np.zeros(len(values), dtype=np.int8)
    met = np.ones(len(values), dtype=np.bool_)
    for limit, sign in _limits(target):
        good, bad = _beyond(found, limit, sign, limit_counts=target.limit_counts)
        met &= bad <= cut
        _mark(side, good <= cut, -1, values, found, (limit,), target)
    _mark(side, met, 1, values, found, [limit for limit, _ in _limits(target)], target)
    return side


def _mark(
    side: npt.NDArray[np.int8],
    rows: Flags,
    mark: int,
    values: Matrix,
    found: Matrix,
    limits: Sequence[float],
    target: Target,
) -> None:
    """Mark the rows that may claim their side of all these limits."""
    chosen = np.flatnonzero(rows)
    if target.resolution is not None and chosen.size:
        centre = median(found[chosen])
        needed = np.maximum(spread_of(values[chosen]), target.resolution)
        far = [np.abs(centre - limit) >= needed for limit in limits]
        chosen = chosen[np.logical_and.reduce(far)]
    side[chosen] = mark


def _limits(target: Target) -> Iterator[tuple[float, int]]:
    if target.high is not None:
        yield target.high, 1
    if target.low is not None:
        yield target.low, -1


def _beyond(
    found: Matrix, limit: float, sign: int, *, limit_counts: bool
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Count the points on the good and on the bad side of a limit, row by row."""
    below = np.count_nonzero(found < limit, axis=-1)
    above = np.count_nonzero(found > limit, axis=-1)
    total = found.shape[-1]
    if sign > 0:
        return (total - above, above) if limit_counts else (below, total - below)
    return (total - below, below) if limit_counts else (above, total - above)
