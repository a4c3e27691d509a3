"""Tests of the measurement itself: trend, order, likeness of neighbours, outliers. Pure.

What the named numbers mean is explained in `hyperbox.harness.verdicts.diagnosis`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hyperbox.harness.statistics.design import InferenceKind, Matrix
from hyperbox.harness.statistics.location import median, points
from hyperbox.harness.statistics.sequential import spread_of

__all__ = [
    "diagnostics",
    "far",
    "groups_of",
    "warm_up_length",
]

_APART = 1 / 5  # of the range
_TIGHT = 1 / 20


def diagnostics(values: Matrix, baseline_first: Sequence[bool] | None) -> dict[str, float]:
    """Diagnose one sample in the order of the run, with the order of each pair if it is of pairs.

    All pairs of values are compared: cost and memory grow with the square of their number.
    """
    spread = float(spread_of(values))
    signs = np.sign(values[:, np.newaxis] - values)
    ranks = (signs.sum(axis=1) + values.size + 1) / 2  # ties share their ranks
    found = {"spread": spread, **_over_time(signs, ranks)}
    if baseline_first is not None:
        found |= _order_effect(values, ranks, baseline_first)
        found |= _asymmetry(values, spread)
    return found | _outliers(values, spread)


def far(n: int) -> float:
    """Return the spreads from the median beyond which one of `n` blocks is an outlier.

    Of few values the spread is ill known: 8 spreads of 8 values, 5.75 of 32, so that at
    most one in a hundred normal samples has an outlier.
    """
    return 5 + 24 / n


def groups_of(values: Matrix) -> list[tuple[int, float]]:
    """Return size and middle of each group if the values fall into few tight ones, else none.

    Groups are set apart by a fifth of the range and are no wider than a twentieth of it:
    of sound samples of any usual shape less than one in two hundred looks so.
    """
    ordered = np.sort(values)
    reach = float(ordered[-1] / 2 - ordered[0] / 2)  # halves: huge values overflow
    if reach <= 0:
        return []
    gaps = ordered[1:] / 2 - ordered[:-1] / 2
    parts = np.split(ordered, np.flatnonzero(gaps > _APART * reach) + 1)
    several = sum(part.size > 1 for part in parts)
    widest = max(float(part[-1] / 2 - part[0] / 2) for part in parts)
    if not 2 <= len(parts) <= values.size / 2 or several < 2:
        return []
    return [] if widest > _TIGHT * reach else [(p.size, float(median(p))) for p in parts]


def warm_up_length(values: Sequence[float]) -> int:
    """Return how many values at the start are far from what the rest agree on.

    For a pilot: measure it once, write the number into the program, and keep it there.
    Choosing it anew from the data that decide would bias them. At most half of the
    values can be warm-up.
    """
    vector = np.asarray(values, dtype=np.float64)
    settled = vector[vector.size // 2 :]
    if settled.size < 2:
        return 0
    centre, spread = float(median(settled)), float(spread_of(settled))
    for place, value in enumerate(vector[: vector.size // 2]):
        if abs(value - centre) <= far(settled.size) * spread:
            return place
    return vector.size // 2


def _over_time(signs: Matrix, ranks: Matrix) -> dict[str, float]:
    """Test for a trend and for likeness of neighbours."""
    n = ranks.size
    agreement = float(np.tril(signs).sum())
    deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    centred = ranks - (n + 1) / 2
    square = float(centred @ centred)
    lag = float(centred[1:] @ centred[:-1]) / square if square else 0.0
    # Moments of ranks under independence: Dufour and Roy 1985, "Some robust exact results
    # on sample autocorrelations and tests of randomness".
    of_ranks = 5 * n**4 - 14 * n**3 - 9 * n**2 + 26 * n + 16
    lag_deviation = math.sqrt(of_ranks / (5 * (n - 1) ** 2 * n**2 * (n + 1)))
    return {
        "drift": agreement / (n * (n - 1) / 2),
        "p_drift": _two_sided(max(0.0, abs(agreement) - 1) / deviation),
        "lag1": lag,
        "p_lag1": _upper((lag + 1 / n) / lag_deviation) if square else 1.0,
    }


def _order_effect(
    values: Matrix, ranks: Matrix, baseline_first: Sequence[bool]
) -> dict[str, float]:
    """Test whether it matters which arm runs first (Mann-Whitney, normal approximation)."""
    first = np.array(baseline_first)
    n, m = int(first.sum()), int((~first).sum())
    if not n or not m:
        return {"order_effect": 0.0, "p_order": 1.0}
    statistic = float(ranks[first].sum()) - n * (n + 1) / 2
    distance = max(0.0, abs(statistic - n * m / 2) - 0.5)
    return {
        "order_effect": float(median(values[first]) - median(values[~first])),
        "p_order": _two_sided(distance / math.sqrt(n * m * (n + m + 1) / 12)),
    }


def _asymmetry(values: Matrix, spread: float) -> dict[str, float]:
    if spread <= 0:
        return {"asymmetry": 0.0}
    centre = float(median(points(values, InferenceKind.SIGNED_RANK)))
    return {"asymmetry": (centre - float(median(values))) / spread}


def _outliers(values: Matrix, spread: float) -> dict[str, float]:
    if spread <= 0:
        return {"outliers": 0.0, "warm_up": 0.0}
    beyond = np.abs(values - median(values)) > far(values.size) * spread
    warm_up = int(np.argmin(beyond)) if not beyond.all() else 0
    return {"outliers": float(np.count_nonzero(beyond)), "warm_up": float(warm_up)}


def _two_sided(z: float) -> float:
    return math.erfc(z / math.sqrt(2))


def _upper(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2))
