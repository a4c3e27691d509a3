"""Planned looks at many samples at once: which look decides, and how. Pure, vectorised.

Gates are decided and calibrated by this one function, so that what is calibrated is what
decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyperbox.harness.statistics.design import ALPHA, LOOKS, InferenceKind, Matrix, Target
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
Sides = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Decisions:
    """One entry per sample.

    `side` is 1 where the target is met (PASS), -1 where it is missed (FAIL), 0 where
    nothing is decided. `n` is the number of blocks of the look that decided; without a
    decision of the last look reached, or all blocks before the first look.
    """

    side: Sides
    n: npt.NDArray[np.int64]


def first_decisions(values: Matrix, target: Target) -> Decisions:
    """Return the first look that decides, for each row of values (a column per block).

    A location wholly on the good side of the limits is met, wholly on the bad side of
    one of them missed.
    """
    rows, blocks = values.shape
    side = np.zeros(rows, dtype=np.int8)
    used = np.full(rows, blocks, dtype=np.int64)
    for place, look in enumerate(LOOKS):
        if look > blocks:
            break
        open_rows = np.flatnonzero(side == 0)
        used[open_rows] = look
        cuts = {kind: critical_value(look, target.alphas[place], kind) for kind in target.tests}
        for start in range(0, open_rows.size, _CHUNK):
            chunk = open_rows[start : start + _CHUNK]
            side[chunk] = _look(values[chunk, :look], target, cuts)
    return Decisions(side, used)


def p_met(
    values: Sequence[float], target: Target, tests: Sequence[InferenceKind] | None = None
) -> float:
    """Return the p-value of "the target is met" without regard to earlier looks.

    It is that of the least convinced test at the nearer limit; `tests` names others than
    the target's own.
    """
    counts, found = target.limit_counts, []
    for kind in tests or target.tests:
        if target.high is not None:
            found.append(p_below(values, target.high, limit_counts=counts, kind=kind))
        if target.low is not None:
            found.append(p_above(values, target.low, limit_counts=counts, kind=kind))
    return max(found)


def p_missed(
    values: Sequence[float], target: Target, tests: Sequence[InferenceKind] | None = None
) -> float:
    """Return the p-value of "the target is missed", of the worse side if there are two."""
    counts, kinds, found = not target.limit_counts, tests or target.tests, []
    if target.high is not None:
        high = target.high
        found.append(max(p_above(values, high, limit_counts=counts, kind=kind) for kind in kinds))
    if target.low is not None:
        low = target.low
        found.append(max(p_below(values, low, limit_counts=counts, kind=kind) for kind in kinds))
    return min(found)


def alpha_at(n: int, target: Target) -> float:
    """Return the bound of the look at `n` blocks (of the first look before it)."""
    reached = sum(1 for look in LOOKS if look <= n)
    return target.alphas[max(0, reached - 1)]


def through_all_looks(values: Sequence[float], target: Target) -> tuple[float, float]:
    """Return p-values of "met" and "missed" that allow for having looked several times.

    They are at most `ALPHA` exactly if a look so far decides (leaving out what the exact
    lane refuses), so they may be compared with any smaller bound, such as one shared by
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
    """Return the spread of each row: its median absolute deviation as a standard deviation."""
    centre = median(values)[..., np.newaxis]
    spread: Matrix = _MAD_TO_DEVIATION * median(np.abs(values - centre))
    return spread


def _look(values: Matrix, target: Target, cuts: Mapping[InferenceKind, int | None]) -> Sides:
    """Decide each row at one look."""
    limits = tuple(_limits(target))
    met = np.ones(len(values), dtype=np.bool_)
    missed = np.ones((len(limits), len(values)), dtype=np.bool_)
    for kind, cut in cuts.items():
        if cut is None:
            return np.zeros(len(values), dtype=np.int8)
        rows = np.flatnonzero(met | missed.any(axis=0))  # the dear test asks those that are left
        found = points(values[rows], kind)
        for place, (limit, sign) in enumerate(limits):
            good, bad = _beyond(found, limit, sign, limit_counts=target.limit_counts)
            met[rows] &= bad <= cut
            missed[place, rows] &= good <= cut
    side = np.zeros(len(values), dtype=np.int8)
    for place, (limit, _) in enumerate(limits):
        _mark(side, missed[place], -1, values, (limit,), target)
    _mark(side, met, 1, values, [limit for limit, _ in limits], target)
    return side


def _mark(
    side: Sides,
    rows: Flags,
    mark: int,
    values: Matrix,
    limits: Sequence[float],
    target: Target,
) -> None:
    """Mark the rows that may claim their side of all these limits."""
    chosen = np.flatnonzero(rows)
    if target.resolution is not None and chosen.size:
        centre = median(points(values[chosen], target.kind))
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
