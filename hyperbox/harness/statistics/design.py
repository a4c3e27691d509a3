"""The sequential design: planned looks, the error spent at each, and what is tested. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALPHA",
    "LOOKS",
    "LOOK_ALPHA",
    "ONE_LIMIT",
    "TWO_LIMITS",
    "InferenceKind",
    "Matrix",
    "Target",
    "next_look",
]

Matrix = npt.NDArray[np.float64]
"""A row per sample, a column per block."""

LOOKS: tuple[int, ...] = (8, 12, 20, 32)
"""Planned numbers of blocks at which a gate may be decided."""

ALPHA = 0.025
"""Promised bound of a wrong verdict on each side, over all looks together."""

LOOK_ALPHA = ALPHA / len(LOOKS)
"""An equal share of it (Bonferroni over the looks: holds whatever their dependence)."""

ONE_LIMIT: tuple[float, ...] = (0.0040, 0.0034, 0.0060, 0.0116)
"""Bound of each look where a wrong verdict has one side: about equal shares, but for the coarse
steps of the sign test (0.0039, 0.0032, 0.0059, 0.0100), which leave more for the last look."""

# A FAIL of a target with two limits may err on two sides, so each has half of the budget.
# The first look needs 1/256 to be able to decide at all; the others share the rest.
_FIRST = 1 / 256
TWO_LIMITS: tuple[float, ...] = (_FIRST, 0.0033, 0.0014, ALPHA / 2 - _FIRST - 0.0047)
"""Bound of each look and each side for a target with two limits (steps: 0.0039, 0.0032,
0.0013, 0.0035)."""


class InferenceKind(StrEnum):
    """Which points an inference rests on."""

    SIGNED_RANK = "signed rank"
    SIGN = "sign"


@dataclass(frozen=True)
class Target:
    """A good location lies at or above `low` and at or below `high` (None: no such limit).

    The limits are on the scale of the decided values: log ratio, or the metric's unit.
    `limit_counts` says whether a limit itself is good. `alphas` bound the error of each
    planned look and side. `kind` is what estimate and interval rest on; see `tests`.
    `resolution` is None where only noise limits what can be claimed; else (exact lane) the
    estimate must also lie further from the limit than the spread of the starts and than
    `resolution`, or nothing is claimed.
    """

    low: float | None
    high: float | None
    limit_counts: bool = True
    kind: InferenceKind = InferenceKind.SIGNED_RANK
    alphas: tuple[float, ...] = ONE_LIMIT
    resolution: float | None = None

    @property
    def tests(self) -> tuple[InferenceKind, ...]:
        """The exact tests that must agree on a claim, each at the bound of its look.

        Signs need nothing but independent blocks, so they alone keep the promise in any
        shape. Where the estimate is the signed ranks', those must be convinced too: they
        speak for the whole of the blocks, of which the median may be the lesser part.
        """
        return (
            (InferenceKind.SIGN,)
            if self.kind is InferenceKind.SIGN
            else (InferenceKind.SIGN, InferenceKind.SIGNED_RANK)
        )

    def holds(self, value: float) -> bool:
        """Whether a location at `value` would be good."""
        above = self.low is None or value > self.low or (self.limit_counts and value == self.low)
        below = self.high is None or value < self.high or (self.limit_counts and value == self.high)
        return above and below


def next_look(n: int) -> int | None:
    """Return the next planned number of blocks after `n`, or None after the last look."""
    return next((look for look in LOOKS if look > n), None)
