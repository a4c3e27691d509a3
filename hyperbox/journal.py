"""The one door for changes of this machine: written down before, undone after.

A change is on record, on disk, before it is made; what a killed process left is so known to
`hyperbox.repair`. How a change is undone is not known here: `hyperbox.linux` has the kinds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from hyperbox.errors import HyperboxError, WorkloadError
from hyperbox.paths import user_directory
from hyperbox.records import (
    Change,
    Fact,
    Owner,
    announcement,
    file_name,
    line,
    read_directory,
    refusal,
    this_process,
)

__all__ = [
    "ChangeKind",
    "ChangeRecord",
    "Sharing",
    "UndoOutcome",
    "begin",
    "exclusively",
    "on_record",
    "state_directories",
    "state_directory",
    "undoing",
]

_SYSTEM = Path("/run/hyperbox")
_exclusive = threading.RLock()
_locked: set[Path] = set()
_REWRITE_BYTES = 1 << 16  # a long life of many notes is cut back to what is outstanding


class UndoOutcome(StrEnum):
    """What came of undoing a change."""

    UNDONE = "undone"
    NOTHING = "nothing to undo"
    FOREIGN = "left alone, somebody else changed it"
    SHARED = "left to another process that uses it"
    FAILED = "cannot be undone"


class Sharing(StrEnum):
    """What other processes may do with the subject of a change meanwhile."""

    NONE = "one process at a time"
    LAST = "the last process undoes it"
    ANY = "nothing is shared"


@dataclass(frozen=True)
class ChangeKind:
    """A kind of change.

    `undo` looks first: it undoes only what still is as the change left it, may be repeated,
    and raises `HyperboxError` if the kernel refuses. `describe` says what is left of the change,
    nothing if nothing is.
    """

    name: str
    describe: Callable[[Change], str]
    undo: Callable[[Change], UndoOutcome]
    sharing: Sharing = Sharing.ANY


class ChangeRecord:
    """A change of this process on record."""

    def __init__(self, journal: _Journal, kind: ChangeKind, change: Change) -> None:
        self._journal = journal
        self._kind = kind
        self.change = change

    def note(self, **facts: Fact) -> None:
        """Add facts, or replace them; on disk when this returns.

        Raises
        ------
        HarnessError
            If the journal cannot be written: then do not make the change.
        """
        self.change = replace(self.change, facts={**self.change.facts, **facts})
        self._journal.note(self.change, facts)

    def undo(self) -> UndoOutcome:
        """Undo the change and mark it as done; it stays on record if that fails.

        A forked child leaves its parent's changes alone.
        """
        if self.change.owner != this_process():
            return UndoOutcome.SHARED
        last = self._kind.sharing is Sharing.LAST
        with exclusively() if last else contextlib.nullcontext():
            used = last and any(other.owner.lives() for other in self.others())
            outcome = UndoOutcome.SHARED if used else self._kind.undo(self.change)
            self.forget()
        return outcome

    def forget(self) -> None:
        """Mark the change as done: there is nothing to undo any more."""
        self._journal.done(self.change)

    def others(self) -> tuple[Change, ...]:
        """Return the other records of the same subject, of this process or another."""
        mine = (self.change.owner, self.change.number)
        found = on_record(self._kind, self.change.subject)
        return tuple(other for other in found if (other.owner, other.number) != mine)


def begin(kind: ChangeKind, subject: str | os.PathLike[str], **facts: Fact) -> ChangeRecord:
    """Put a change on record. Make it only after this has returned.

    Raises
    ------
    HarnessError
        If the journal cannot be written.
    WorkloadError
        If another process is changing the same and the kind is for one at a time.
    """
    record = _journal().begin(kind, os.fspath(subject), facts)
    if kind.sharing is not Sharing.NONE:
        return record
    for other in record.others():
        if other.owner != record.change.owner and other.owner.lives():
            record.forget()
            raise WorkloadError(
                f"{subject} is being changed by process {other.owner.pid} already",
                hint="let the other hyperbox end first",
            )
    return record


def on_record(kind: ChangeKind, subject: str | os.PathLike[str]) -> tuple[Change, ...]:
    """Return what is outstanding of a subject since the boot, newest first, whoever made it."""
    wanted = (kind.name, os.fspath(subject))
    return tuple(
        change
        for change in read_directory(state_directory())
        if (change.kind, change.subject) == wanted and change.owner.booted_now()
    )


@contextlib.contextmanager
def undoing(
    kind: ChangeKind, subject: str | os.PathLike[str], **facts: Fact
) -> Iterator[ChangeRecord]:
    """Put a change on record for the block, which makes it; undo it at the end.

    Raises
    ------
    HarnessError, WorkloadError
        As `begin` does, and as the kind's undo does.
    """
    record = begin(kind, subject, **facts)
    try:
        yield record
    finally:
        record.undo()


def state_directory() -> Path:
    """Return where this user's journals lie.

    That is ``$HYPERBOX_STATE/journal``, else ``/run/hyperbox/journal`` for root, else below
    ``$XDG_RUNTIME_DIR`` or ``$XDG_STATE_HOME`` (XDG base directory specification).
    """
    chosen = os.environ.get("HYPERBOX_STATE")
    if chosen:
        return Path(chosen).resolve() / "journal"
    if os.geteuid() == 0:
        return _SYSTEM / "journal"
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    base = runtime if runtime.is_absolute() else user_directory("XDG_STATE_HOME", ".local/state")
    return base / "hyperbox" / "journal"


def state_directories() -> tuple[Path, ...]:
    """Return where journals that concern this user lie: the user's own, and root's."""
    own = state_directory()
    if os.environ.get("HYPERBOX_STATE"):
        return (own,)
    return tuple(dict.fromkeys((own, _SYSTEM / "journal")))


@contextlib.contextmanager
def exclusively(directory: Path | None = None) -> Iterator[None]:
    """Keep other processes from sharing or repairing for the block.

    Raises
    ------
    HarnessError
        If the state directory cannot be written.
    """
    place = state_directory() if directory is None else directory
    with _exclusive:  # threads of this process; the same thread may nest
        if place in _locked:
            yield
            return
        with refusal(place):
            place.mkdir(parents=True, exist_ok=True)
            handle = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            _locked.add(place)
            yield
        finally:
            _locked.discard(place)
            os.close(handle)


class _Journal:
    """The file of one process; it exists while something is outstanding."""

    def __init__(self, owner: Owner, directory: Path) -> None:
        self.owner = owner
        self.path = directory / file_name(owner)
        self._handle = -1
        self._size = 0
        self._cut = False
        self._last = 0
        self._outstanding: dict[int, Change] = {}
        self._lock = threading.RLock()

    def begin(self, kind: ChangeKind, subject: str, facts: Mapping[str, Fact]) -> ChangeRecord:
        with self._lock:
            self._last += 1
            now = time.monotonic_ns()
            change = Change(self.owner, self._last, kind.name, subject, now, dict(facts))
            self._append(announcement(change))
            self._outstanding[change.number] = change
            return ChangeRecord(self, kind, change)

    def note(self, change: Change, facts: Mapping[str, Fact]) -> None:
        with self._lock:
            self._outstanding[change.number] = change
            if self._size > _REWRITE_BYTES:
                self._rewrite()
            else:
                self._append({"change": change.number, "facts": dict(facts)})

    def done(self, change: Change) -> None:
        """Strike a change; a mark that cannot be written costs a repair without effect."""
        with self._lock, contextlib.suppress(HyperboxError):
            self._outstanding.pop(change.number, None)
            if self._outstanding:
                self._append({"change": change.number, "done": True})
            else:
                self._remove()

    def _append(self, entry: Mapping[str, object]) -> None:
        data = b"\n" * self._cut + line(entry)
        with refusal(self.path):
            if self._handle < 0:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._handle = os.open(self.path, flags, 0o644)
            written = os.write(self._handle, data)
            self._size += written
            self._cut = written < len(data)
            if self._cut:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self._handle)

    def _rewrite(self) -> None:
        """Replace the file by one of what is outstanding; the old one stays until it is whole."""
        final, fresh = self.path, self.path.with_suffix(".new")
        with refusal(fresh):
            fresh.unlink(missing_ok=True)
            self._close()
            self.path = fresh
            try:
                for change in self._outstanding.values():
                    self._append(announcement(change))
                fresh.replace(final)
            except BaseException:
                self._close()
                raise
            finally:
                self.path = final

    def _remove(self) -> None:
        with refusal(self.path):
            self.path.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._size, self._cut = -1, 0, False


_journals: dict[tuple[Owner, Path], _Journal] = {}


def _journal() -> _Journal:
    """Return this process's journal; a forked child begins its own."""
    key = (this_process(), state_directory())
    if key not in _journals:
        _journals.setdefault(key, _Journal(*key))
    return _journals[key]
