"""What happens during a run, as typed events: progress bars and logs are made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hyperbox.harness.model import Cell

__all__ = [
    "AttemptRecorded",
    "BlockMeasured",
    "CellResumed",
    "CellStarted",
    "Event",
    "Listener",
    "SetupStep",
]


@dataclass(frozen=True)
class SetupStep:
    """Something is fetched, built or booted; `fraction` goes from 0 to 1."""

    text: str
    fraction: float


@dataclass(frozen=True)
class CellStarted:
    """A cell is being tried for the `attempt`-th time, with at most `blocks` blocks."""

    cell: Cell
    attempt: int
    blocks: int


@dataclass(frozen=True)
class BlockMeasured:
    """A cell has `done` of at most `blocks` blocks."""

    cell: Cell
    done: int
    blocks: int


@dataclass(frozen=True)
class AttemptRecorded:
    """An attempt is on disk; `final` unless it is tried again."""

    cell: Cell
    state: str
    reason: str
    final: bool


@dataclass(frozen=True)
class CellResumed:
    """A cell was on record already and is not measured again."""

    cell: Cell


Event = SetupStep | CellStarted | BlockMeasured | AttemptRecorded | CellResumed
Listener = Callable[[Event], None]
