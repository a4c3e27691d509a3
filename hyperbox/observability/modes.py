"""How much the tracer looks at, and what that costs a call. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Costs", "Mode"]


class Mode(IntEnum):
    """How much is looked at, from most to least."""

    FULL = 0
    """Every call is timed and reported."""
    HYBRID = 1
    """Every call is counted, some are timed, slow and failed ones and examples are reported."""
    COUNT = 2
    """Every call is counted."""
    OFF = 3
    """Nothing is; the programs are detached and cost nothing."""


@dataclass(frozen=True)
class Costs:
    """What a call costs more than without a tracer, in nanoseconds."""

    traced: Mapping[Mode, float]
    skipped: float
    """Of a process that is not traced: it passes the programs all the same."""

    def of(self, mode: Mode, calls: int, skipped: int) -> float:
        """Return what calls cost in a mode."""
        if mode is Mode.OFF:
            return 0.0
        return self.traced[mode] * calls + self.skipped * skipped
