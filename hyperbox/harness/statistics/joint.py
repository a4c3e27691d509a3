"""Many rows of the same blocks tested at once: what luck does to all of them together. Pure.

Rows that were measured in the same blocks rise and fall together, and some say nearly the same.
To correct for each as if it stood alone wastes what few blocks can show. Westfall and Young
(1993, "Resampling-based multiple testing", algorithm 2.8, step-down min-P): the side that a block
belongs to is exchanged in the same way for all rows of a group, and a row is compared with
the smallest p-value that this gives any row not yet found. Groups are added up (Bonferroni),
whatever their dependence. The chance of any false claim stays below the bound, as with Holm's
procedure, which is the case of groups of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from hyperbox.harness.statistics.design import InferenceKind, Matrix
from hyperbox.harness.statistics.location import points, tail
from hyperbox.harness.statistics.shifts import rank_sum_tail

__all__ = ["Group", "exchanged_pairs", "exchanged_sets", "step_down"]

_MOST = 13_000
"""Exchanges that are all gone through; 8 + 8 blocks have 12 870, 13 pairs 8 192."""

_DRAWN = 10_000
_SEED = 1


@dataclass(frozen=True)
class Group:
    """Rows of the same blocks: `places` in the family, and p-values by exchange.

    `luck` has a row per place and a column per exchange of the blocks' sides. `drawn` says
    that the exchanges are a sample of all.
    """

    places: tuple[int, ...]
    luck: Matrix
    drawn: bool


def step_down(p_values: Sequence[float], groups: Sequence[Group]) -> list[float]:
    """Return the adjusted p-values in the order given; each place belongs to one group."""
    group_of = {place: group for group in groups for place in group.places}
    least = {id(group): _Least(group) for group in groups}
    adjusted = [1.0] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for place in reversed(order):
        least[id(group_of[place])].add(place)
        together = sum(one.chance(p_values[place]) for one in least.values())
        adjusted[place] = min(1.0, max(p_values[place], together))
    largest = 0.0
    for place in order:
        largest = adjusted[place] = max(largest, adjusted[place])
    return adjusted


class _Least:
    """The smallest p-value of the rows added so far, by exchange."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._row = {place: row for row, place in enumerate(group.places)}
        self._smallest = np.ones(group.luck.shape[1], dtype=group.luck.dtype)
        self._sorted = self._smallest
        self._rows = 0

    def add(self, place: int) -> None:
        self._smallest = np.minimum(self._smallest, self._group.luck[self._row[place]])
        self._sorted = np.sort(self._smallest)
        self._rows += 1

    def chance(self, p: float) -> float:
        """Return P(any row added has a p-value of at most `p`); never above Bonferroni's bound."""
        if not self._rows:
            return 0.0
        as_small = int(np.searchsorted(self._sorted, p * (1 + 1e-9), side="right"))
        seen = int(self._group.drawn)  # what was measured is one of the exchanges, too
        return min((as_small + seen) / (self._sorted.size + seen), self._rows * p)


def exchanged_pairs(differences: Matrix, kind: InferenceKind) -> tuple[Matrix, bool]:
    """Return two-sided p-values under each exchange of sides within pairs, a row per row given.

    `differences` has a row per metric and a column per pair. Also says whether the
    exchanges were drawn.
    """
    n = differences.shape[1]
    drawn = 2**n > _MOST
    if drawn:
        signs = np.random.default_rng(_SEED).integers(0, 2, (_DRAWN, n)) * 2 - 1
    else:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    size = n if kind is InferenceKind.SIGN else n * (n + 1) // 2
    known = np.array([min(1.0, 2 * tail(count, n, kind)) for count in range(size + 1)])
    found = np.empty((len(differences), len(signs)))
    for row, values in enumerate(differences):
        located = points(signs * values, kind)
        # A point of exactly zero speaks for neither side.
        beyond = np.minimum((located >= 0).sum(axis=1), (located <= 0).sum(axis=1))
        found[row] = known[beyond]
    return found, drawn


def exchanged_sets(first: Matrix, second: Matrix) -> tuple[Matrix, bool]:
    """Return two-sided p-values under each exchange of blocks between two sets.

    `first` and `second` have a row per metric and a column per block.
    """
    m, n = first.shape[1], second.shape[1]
    drawn = comb(m + n, m) > _MOST
    if drawn:
        dice = np.random.default_rng(_SEED)
        chosen = dice.permuted(np.tile(np.arange(m + n), (_DRAWN, 1)), axis=1)[:, :m]
    else:
        chosen = np.array(list(combinations(range(m + n), m)))
    known = np.array([min(1.0, 2 * rank_sum_tail(u, m, n)) for u in range(m * n + 1)])
    found = np.empty((len(first), len(chosen)))
    for row, values in enumerate(np.hstack([first, second])):
        # Pairs of a block of the first set with any block, less those within the first set.
        within = m * (m + 1) // 2 + _ties_within(values, chosen)
        at_most = (values[None, :] <= values[:, None]).sum(axis=1)
        at_least = (values[None, :] >= values[:, None]).sum(axis=1)
        below = at_most[chosen].sum(axis=1) - within
        above = at_least[chosen].sum(axis=1) - within
        found[row] = known[np.minimum(below, above)]
    return found, drawn


def _ties_within(values: Matrix, chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Count the pairs of equal values among those chosen, for each choice."""
    found = np.zeros(len(chosen), dtype=np.intp)
    distinct, counts = np.unique(values, return_counts=True)
    for value in distinct[counts > 1]:
        equal = (values == value)[chosen].sum(axis=1)
        found += equal * (equal - 1) // 2
    return found
