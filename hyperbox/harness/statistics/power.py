"""What a number of blocks can show: power and the smallest effect worth looking for. Pure.

The tables were simulated with `sequential.first_decisions` on normal values (100,000
samples a cell); a test draws some of them again.
"""

from __future__ import annotations

import numpy as np

from hyperbox.harness.statistics.design import LOOKS, InferenceKind, Target

__all__ = ["WANTED_POWER", "detectable", "power"]

WANTED_POWER = 0.8
"""Below this chance of a verdict a gate is marked as underpowered."""

_DISTANCES = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4)
"""True distances from the limit, in standard deviations of the decided values."""

# (kind, whether the spread of starts bounds what is claimed) -> last look -> power. In the
# exact lane, where it does, everything is decided by signs.
_EIGHT = (0.004, 0.017, 0.052, 0.127, 0.251, 0.409, 0.577, 0.722, 0.833, 0.952, 0.989, 1.0)
_POWER = {
    (InferenceKind.SIGNED_RANK, False): {
        8: _EIGHT,
        12: (0.004, 0.022, 0.078, 0.207, 0.410, 0.636, 0.815, 0.922, 0.971, 0.998, 1.0, 1.0),
        20: (0.007, 0.047, 0.205, 0.513, 0.804, 0.950, 0.992, 0.999, 1.0, 1.0, 1.0, 1.0),
        32: (0.011, 0.110, 0.459, 0.838, 0.979, 0.999, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    },
    (InferenceKind.SIGN, False): {
        8: _EIGHT,
        12: (0.006, 0.027, 0.093, 0.233, 0.440, 0.657, 0.825, 0.925, 0.973, 0.998, 1.0, 1.0),
        20: (0.010, 0.063, 0.236, 0.536, 0.810, 0.949, 0.992, 0.999, 1.0, 1.0, 1.0, 1.0),
        32: (0.017, 0.135, 0.480, 0.842, 0.979, 0.999, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    },
    (InferenceKind.SIGN, True): {
        8: (0.003, 0.013, 0.044, 0.112, 0.229, 0.385, 0.554, 0.706, 0.824, 0.950, 0.989, 1.0),
        12: (0.004, 0.021, 0.074, 0.194, 0.388, 0.609, 0.793, 0.910, 0.967, 0.997, 1.0, 1.0),
        20: (0.005, 0.029, 0.120, 0.328, 0.608, 0.835, 0.951, 0.989, 0.998, 1.0, 1.0, 1.0),
        32: (0.005, 0.031, 0.141, 0.394, 0.709, 0.912, 0.983, 0.998, 1.0, 1.0, 1.0, 1.0),
    },
}


def power(distance: float, spread: float, blocks: int, target: Target) -> float:
    """Return the chance of a verdict in up to `blocks` blocks, for a true location `distance`
    away from the limit, in the unit of `spread` (a standard deviation).
    """  # noqa: D205 - one sentence
    table = _table(blocks, target)
    if table is None or (target.resolution is not None and distance < target.resolution):
        return 0.0
    if spread <= 0:
        return 1.0 if distance > 0 else 0.0
    return float(np.interp(distance / spread, _DISTANCES, table))


def detectable(spread: float, blocks: int, target: Target) -> float | None:
    """Return the distance from the limit that is found with `WANTED_POWER`; None if none is."""
    table = _table(blocks, target)
    if table is None:
        return None
    distance = spread * float(np.interp(WANTED_POWER, table, _DISTANCES))
    return max(distance, target.resolution or 0.0)


def _table(blocks: int, target: Target) -> tuple[float, ...] | None:
    last = max((look for look in LOOKS if look <= blocks), default=None)
    if last is None:
        return None
    return _POWER[target.kind, target.resolution is not None][last]
