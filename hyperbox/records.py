"""The records of machine changes on disk: what a line says, whose file it is in, who lives.

A state directory has a file for each process that has changed something, one JSON object a
line; `hyperbox.journal` writes it. A line may be cut short by a crash or a full disk: the
change that it announced was not made.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hyperbox.errors import HarnessError
from hyperbox.foreign import open_regular, parse_json

__all__ = [
    "Change",
    "Fact",
    "Owner",
    "announcement",
    "file_name",
    "line",
    "parse",
    "read_directory",
    "refusal",
    "strike",
    "sweep",
    "this_process",
]

_MOST_BYTES = 64 << 20  # of a journal: `hyperbox.journal` cuts it back long before

Fact = str | int | Sequence[str]
"""What a fact may be: it goes through JSON."""


@dataclass(frozen=True)
class Owner:
    """A process that no later one can be taken for.

    `start` is in clock ticks since the boot (proc_pid_stat(5)), `namespace` is the inode of
    its pid namespace, `boot` the kernel's boot id.
    """

    pid: int
    start: int
    namespace: int
    boot: str

    def lives(self) -> bool:
        """Whether the process runs; one of another pid namespace may, so it does."""
        if not self.booted_now():
            return False
        here = this_process()
        return self.namespace != here.namespace or _start_of(self.pid) == self.start

    def booted_now(self) -> bool:
        """Whether it ran since this boot; no change of a machine outlives one."""
        return self.boot == this_process().boot


def this_process() -> Owner:
    """Return the process that runs this, a forked child its own."""
    return _process(os.getpid())


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
        """Return a fact as text; empty if it is not on record."""
        return str(self.facts.get(fact, ""))


def read_directory(directory: Path) -> tuple[Change, ...]:
    """Return every outstanding change in a state directory, newest first.

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
    """Return the changes of a journal that are not done, oldest first.

    Lines that are not records are passed over: they were cut short.
    """
    changes: dict[int, Change] = {}
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            entry = parse_json(line)
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


def strike(directory: Path, changes: Sequence[Change]) -> None:
    """Mark changes of dead processes as done; files with nothing outstanding go away.

    Raises
    ------
    HarnessError
        If a journal cannot be written.
    """
    for owner in dict.fromkeys(change.owner for change in changes):
        path = directory / file_name(owner)
        numbers = [change.number for change in changes if change.owner == owner]
        left = [c for c in parse(_trusted_text(path), owner) if c.number not in numbers]
        with refusal(path):
            if not left:
                path.unlink(missing_ok=True)
                continue
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                for number in numbers:  # the first line may follow one that was cut short
                    os.write(handle, b"\n" + line({"change": number, "done": True}))
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
    with refusal(directory):
        for path in directory.iterdir():
            owner = _owner(path.name)
            if owner is None or owner.lives() or (path.is_dir() and not path.is_symlink()):
                continue  # no journal is a directory
            whole = path.suffix == ".jsonl" and owner.booted_now()
            if not (whole and parse(_trusted_text(path), owner)):
                path.unlink(missing_ok=True)


def announcement(change: Change) -> dict[str, object]:
    """Return the entry that puts a change on record."""
    return {
        "change": change.number,
        "kind": change.kind,
        "subject": change.subject,
        "at": change.at,
        "facts": dict(change.facts),
    }


def line(entry: Mapping[str, object]) -> bytes:
    """Return an entry as it stands in a file."""
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def file_name(owner: Owner) -> str:
    """Return the name of a process's file."""
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
    with contextlib.suppress(OSError, ValueError), open_regular(path, os.O_NOFOLLOW) as opened:
        handle, facts = opened
        if facts.st_uid in (0, os.geteuid()):
            with os.fdopen(handle, "rb", closefd=False) as stream:
                return stream.read(_MOST_BYTES).decode(errors="replace")
    return ""


@contextlib.contextmanager
def refusal(path: Path) -> Iterator[None]:
    """Turn the system's refusal into one line; nothing is changed that is not on record."""
    try:
        yield
    except OSError as error:
        raise HarnessError(
            f"cannot keep the journal of machine changes {path}: {error.strerror or error}",
            hint="free or make writable that place, or set HYPERBOX_STATE to another directory",
        ) from error


@functools.cache
def _process(pid: int) -> Owner:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Owner(pid, _start_of(pid) or 0, Path("/proc/self/ns/pid").stat().st_ino, boot)


def _start_of(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; None if it has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        ended = words[0] in ("Z", "X") and len([*Path(f"/proc/{pid}/task").iterdir()]) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if ended else int(words[19])
