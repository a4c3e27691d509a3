"""Many tests at once: what a family of p-values allows to say. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbox.harness.statistics.design import LOOKS, ONE_LIMIT, TWO_LIMITS

__all__ = ["blocks_needed", "holm"]

_ALL_ALPHAS = (ONE_LIMIT, TWO_LIMITS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values in the order given (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def blocks_needed(family: int) -> int | None:
    """Return the smallest look at which a cell of `family` under any rule can FAIL the release.

    None if even the last look could not.
    """
    for look, alphas in zip(LOOKS, zip(*_ALL_ALPHAS, strict=True), strict=True):
        if max(1, family) * 2.0**-look <= min(alphas):
            return look
    return None
