"""The one door for changes of this machine: written down before, undone after.

Each process has a file of its own in the state directory, one JSON object a line. A change
is on record, on disk, before it is made; what a killed process left is so known to
`hyperbox.repair`. How a change is undone is not known here: `hyperbox.linux` has the kinds.

A line may be cut short by a crash or a full disk: the change that it announced was not made.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from hyperbox.errors import HarnessError, HyperboxError, WorkloadError
from hyperbox.owner import Owner, this_process

__all__ = [
    "Change",
    "Kind",
    "Outcome",
    "Record",
    "Sharing",
    "begin",
    "exclusively",
    "on_record",
    "parse",
    "read_directory",
    "state_directories",
    "state_directory",
    "strike",
    "sweep",
    "undoing",
]

Fact = str | int | Sequence[str]
"""What a fact may be: it goes through JSON."""

_SYSTEM = Path("/run/hyperbox")
_exclusive = threading.RLock()
_locked: set[Path] = set()
_REWRITE_BYTES = 1 << 16  # a long life of many notes is cut back to what is outstanding


class Outcome(StrEnum):
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
class Change:
    """One change on record; `at` is CLOCK_MONOTONIC in ns, `facts` are its kind's."""

    owner: Owner
    number: int
    kind: str
    subject: str
    at: int
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def text(self, fact: str) -> str:
        """Give a fact as text; empty if it is not on record."""
        return str(self.facts.get(fact, ""))


@dataclass(frozen=True)
class Kind:
    """A kind of change.

    `undo` looks first: it undoes only what still is as the change left it, may be repeated,
    and raises `HyperboxError` if the kernel refuses. `describe` says what is left of the change,
    nothing if nothing is.
    """

    name: str
    describe: Callable[[Change], str]
    undo: Callable[[Change], Outcome]
    sharing: Sharing = Sharing.ANY


class Record:
    """A change of this process on record."""

    def __init__(self, journal: _Journal, kind: Kind, change: Change) -> None:
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

    def undo(self) -> Outcome:
        """Undo the change and mark it as done; it stays on record if that fails.

        A forked child leaves its parent's changes alone.
        """
        if self.change.owner != this_process():
            return Outcome.SHARED
        with exclusively() if self._kind.sharing is Sharing.LAST else contextlib.nullcontext():
            used = any(other.owner.lives() for other in self.others())
            shared = self._kind.sharing is Sharing.LAST and used
            outcome = Outcome.SHARED if shared else self._kind.undo(self.change)
            self.forget()
        return outcome

    def forget(self) -> None:
        """Mark the change as done: there is nothing to undo any more."""
        self._journal.done(self.change)

    def others(self) -> tuple[Change, ...]:
        """Give the other records of the same subject, of this process or another."""
        mine = (self.change.owner, self.change.number)
        found = on_record(self._kind, self.change.subject)
        return tuple(other for other in found if (other.owner, other.number) != mine)


def begin(kind: Kind, subject: str | os.PathLike[str], **facts: Fact) -> Record:
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


def on_record(kind: Kind, subject: str | os.PathLike[str]) -> tuple[Change, ...]:
    """Give what is outstanding of a subject since the boot, newest first, whoever made it."""
    wanted = (kind.name, os.fspath(subject))
    return tuple(
        change
        for change in read_directory(state_directory())
        if (change.kind, change.subject) == wanted and change.owner.booted_now()
    )


@contextlib.contextmanager
def undoing(kind: Kind, subject: str | os.PathLike[str], **facts: Fact) -> Iterator[Record]:
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
    """Give where this user's journals lie.

    That is ``$HYPERBOX_STATE/journal``, else ``/run/hyperbox/journal`` for root, else below
    ``$XDG_RUNTIME_DIR`` or ``$XDG_STATE_HOME`` (XDG base directory specification).
    """
    chosen = os.environ.get("HYPERBOX_STATE")
    if chosen:
        return Path(chosen).resolve() / "journal"
    if os.geteuid() == 0:
        return _SYSTEM / "journal"
    base = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local/state") / "hyperbox" / "journal"


def state_directories() -> tuple[Path, ...]:
    """Give where journals that concern this user lie: the user's own, and root's."""
    own = state_directory()
    if os.environ.get("HYPERBOX_STATE"):
        return (own,)
    return tuple(dict.fromkeys((own, _SYSTEM / "journal")))


def read_directory(directory: Path) -> tuple[Change, ...]:
    """Give every outstanding change in a state directory, newest first.

    Files that belong to neither this user nor root are not looked at: undoing what they
    say would lend their writers this user's rights.
    """
    found: list[Change] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for path in sorted(directory.iterdir()):
            owner = _owner(path.name)
            if owner is not None and path.suffix == ".jsonl":
                found += parse(_trusted_text(path), owner)
    return tuple(sorted(found, key=lambda change: (change.at, change.number), reverse=True))


def parse(text: str, owner: Owner) -> tuple[Change, ...]:
    """Give the changes of a journal that are not done, oldest first.

    Lines that are no record are passed over: they were cut short.
    """
    changes: dict[int, Change] = {}
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            entry = json.loads(line)
            number = int(entry["change"])
            if entry.get("done"):
                changes.pop(number, None)
            elif "kind" in entry:
                facts = dict(entry["facts"])
                kind, subject = str(entry["kind"]), str(entry["subject"])
                changes[number] = Change(owner, number, kind, subject, int(entry["at"]), facts)
            elif number in changes:
                facts = {**changes[number].facts, **entry["facts"]}
                changes[number] = replace(changes[number], facts=facts)
    return tuple(changes.values())


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
        with _refusal(place):
            place.mkdir(parents=True, exist_ok=True)
            handle = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            _locked.add(place)
            yield
        finally:
            _locked.discard(place)
            os.close(handle)


def strike(directory: Path, changes: Sequence[Change]) -> None:
    """Mark changes of dead processes as done; files with nothing outstanding go away.

    Raises
    ------
    HarnessError
        If a journal cannot be written.
    """
    for owner in dict.fromkeys(change.owner for change in changes):
        path = directory / _file_name(owner)
        numbers = [change.number for change in changes if change.owner == owner]
        left = [c for c in parse(_trusted_text(path), owner) if c.number not in numbers]
        with _refusal(path):
            if not left:
                path.unlink(missing_ok=True)
                continue
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                for number in numbers:  # the first line may follow one that was cut short
                    os.write(handle, b"\n" + _line({"change": number, "done": True}))
                os.fdatasync(handle)
            finally:
                os.close(handle)


def sweep(directory: Path) -> None:
    """Remove the files of dead processes that hold nothing to undo, or are of earlier boots.

    Raises
    ------
    HarnessError
        If the directory cannot be written.
    """
    with _refusal(directory):
        for path in directory.iterdir():
            owner = _owner(path.name)
            if owner is None or owner.lives():
                continue
            whole = path.suffix == ".jsonl" and owner.booted_now()
            if not (whole and parse(_trusted_text(path), owner)):
                path.unlink(missing_ok=True)


class _Journal:
    """The file of one process; it exists while something is outstanding."""

    def __init__(self, owner: Owner, directory: Path) -> None:
        self.owner = owner
        self.path = directory / _file_name(owner)
        self._handle = -1
        self._size = 0
        self._cut = False
        self._last = 0
        self._outstanding: dict[int, Change] = {}
        self._lock = threading.RLock()

    def begin(self, kind: Kind, subject: str, facts: Mapping[str, Fact]) -> Record:
        with self._lock:
            self._last += 1
            now = time.monotonic_ns()
            change = Change(self.owner, self._last, kind.name, subject, now, dict(facts))
            self._append(_announcement(change))
            self._outstanding[change.number] = change
            return Record(self, kind, change)

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
        line = b"\n" * self._cut + _line(entry)
        with _refusal(self.path):
            if self._handle < 0:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._handle = os.open(self.path, flags, 0o644)
            written = os.write(self._handle, line)
            self._size += written
            self._cut = written < len(line)
            if self._cut:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self._handle)

    def _rewrite(self) -> None:
        """Replace the file by one of what is outstanding; the old one stays until it is whole."""
        final, fresh = self.path, self.path.with_suffix(".new")
        with _refusal(fresh):
            fresh.unlink(missing_ok=True)
            self._close()
            self.path = fresh
            try:
                for change in self._outstanding.values():
                    self._append(_announcement(change))
                fresh.replace(final)
            except BaseException:
                self._close()
                raise
            finally:
                self.path = final

    def _remove(self) -> None:
        with _refusal(self.path):
            self.path.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._size, self._cut = -1, 0, False


_journals: dict[tuple[Owner, Path], _Journal] = {}


def _journal() -> _Journal:
    """Give this process's journal; a forked child begins its own."""
    key = (this_process(), state_directory())
    if key not in _journals:
        _journals.setdefault(key, _Journal(*key))
    return _journals[key]


def _announcement(change: Change) -> dict[str, object]:
    return {
        "change": change.number,
        "kind": change.kind,
        "subject": change.subject,
        "at": change.at,
        "facts": dict(change.facts),
    }


def _line(entry: Mapping[str, object]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _file_name(owner: Owner) -> str:
    return f"{owner.pid}.{owner.start}.{owner.namespace}.{owner.boot}.jsonl"


def _owner(name: str) -> Owner | None:
    """Read a process off the name of its file."""
    with contextlib.suppress(ValueError):
        pid, start, namespace, boot, ending = name.split(".")
        if ending in ("jsonl", "new"):
            return Owner(int(pid), int(start), int(namespace), boot)
    return None


def _trusted_text(path: Path) -> str:
    """Read a journal of this user or root; empty if it is somebody else's or gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(handle, "rb") as stream:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, os.geteuid()):
            return ""
        return stream.read().decode(errors="replace")


@contextlib.contextmanager
def _refusal(path: Path) -> Iterator[None]:
    """Turn the system's refusal into one line; nothing is changed that is not on record."""
    try:
        yield
    except OSError as error:
        raise HarnessError(
            f"cannot keep the journal of machine changes {path}: {error.strerror or error}",
            hint="free or make writable that place, or set HYPERBOX_STATE to another directory",
        ) from error
