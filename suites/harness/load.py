"""What the loads of this suite are made of: a fixed number of equal units of work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

__all__ = ["BackgroundLoad", "Ready", "nothing_more"]


def nothing_more() -> Mapping[str, float]:
    """Return no numbers beside the time."""
    return {}


@dataclass(frozen=True)
class Ready:
    """A load that is set up: `unit` does one unit of work.

    `counters` gives running totals; what they grow by while the units are done is measured.
    """

    unit: Callable[[], object]
    counters: Callable[[], Mapping[str, float]] = field(default=nothing_more)


@dataclass(frozen=True)
class BackgroundLoad:
    """A kind of work.

    `units` are done by the base arm; the planted arm does a two-hundredth of them less.
    `warm_up` units come before the measured ones.
    """

    units: int
    set_up: Callable[[], AbstractContextManager[Ready]]
    warm_up: int = 2

    def __post_init__(self) -> None:
        if self.units % 200:
            raise ValueError(f"half a percent of {self.units} units is not a whole number")
