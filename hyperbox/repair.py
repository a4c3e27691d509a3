"""What killed processes left changed on this machine, and undoing it.

Changes of a running process are never touched. The newest is undone first, whoever made
it, because later changes stand on earlier ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import HyperboxError
from hyperbox.journal import ChangeKind, Sharing, UndoOutcome, exclusively, state_directories
from hyperbox.records import Change, read_directory, strike, sweep

__all__ = ["Repair", "damage", "left_behind", "repair"]


@dataclass(frozen=True)
class Repair:
    """What came of undoing one change: what had been left, and why it could not be undone."""

    change: Change
    left: str
    outcome: UndoOutcome
    reason: str = ""

    def __str__(self) -> str:
        """Return one line for people."""
        what = self.left or f"{self.change.kind} {self.change.subject}"
        return f"{self.outcome}: {what}" + (f": {self.reason}" if self.reason else "")


def left_behind(pids: Collection[int] | None = None) -> tuple[Change, ...]:
    """Return the changes that dead processes left since the boot, newest first.

    `pids` narrows it to processes that had these numbers.
    """
    found = [change for place in state_directories() for change in _left_in(place)]
    return tuple(change for change in found if pids is None or change.owner.pid in pids)


def repair(
    kinds: Mapping[str, ChangeKind], pids: Collection[int] | None = None
) -> tuple[Repair, ...]:
    """Undo what `left_behind` gives; one that cannot be undone keeps none of the others up.

    It stays on record, so that a later repair tries again.
    """
    done: list[Repair] = []
    for place in state_directories():
        if not place.is_dir():
            continue
        try:
            with exclusively(place):
                sweep(place)
                for change in _left_in(place):
                    if pids is None or change.owner.pid in pids:
                        done.append(_repaired(change, kinds, place))
        except HyperboxError as error:  # the lock cannot be had
            for change in _left_in(place):
                if pids is None or change.owner.pid in pids:
                    left = _described(change, kinds)
                    done.append(Repair(change, left, UndoOutcome.FAILED, _refusal(error)))
    return tuple(done)


def damage(kinds: Mapping[str, ChangeKind]) -> tuple[str, ...]:
    """Say what dead processes left, a line for each change that is still there."""
    found = (_described(change, kinds) for change in left_behind())
    return tuple(text for text in found if text)


def _described(change: Change, kinds: Mapping[str, ChangeKind]) -> str:
    """Say what is left of a change, as far as its kind is known; nothing if nothing is."""
    kind = kinds.get(change.kind)
    try:
        return kind.describe(change) if kind else f"{change.kind} {change.subject}"
    except (HyperboxError, OSError, ValueError) as error:
        return f"{change.kind} {change.subject}: {error}"


def _refusal(error: HyperboxError) -> str:
    forbidden = isinstance(error.__cause__, PermissionError)
    return "run as the user who made the change, or root" if forbidden else error.message


def _left_in(place: Path) -> list[Change]:
    return [c for c in read_directory(place) if not c.owner.lives() and c.owner.booted_now()]


def _repaired(change: Change, kinds: Mapping[str, ChangeKind], place: Path) -> Repair:
    left = _described(change, kinds)
    kind = kinds.get(change.kind)
    if kind is None:
        reason = f"this version knows no changes of kind {change.kind}"
        return Repair(change, left, UndoOutcome.FAILED, reason)
    users = [
        str(other.owner.pid)
        for other in read_directory(place)
        if (other.kind, other.subject) == (change.kind, change.subject) and other.owner.lives()
    ]
    if users and kind.sharing is Sharing.NONE:
        return Repair(change, left, UndoOutcome.FAILED, f"process {users[0]} is changing it now")
    try:
        outcome = (
            UndoOutcome.SHARED if users and kind.sharing is Sharing.LAST else kind.undo(change)
        )
        strike(place, [change])
    except (HyperboxError, OSError, ValueError) as error:
        return Repair(change, left, UndoOutcome.FAILED, str(error))
    return Repair(change, left, outcome)
