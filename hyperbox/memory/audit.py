"""The audit trail: what the tuner decided, when by the clock on the wall, why, and what it did.

One JSON object a line, for every decision that was more than nothing. It outlives the tuner and
the machine's next boot, so that "why did it change swappiness at 12:03, and what happened then"
has an answer: `stories`, which ``hyperbox psi decisions`` prints.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.foreign import parse_json, read_bytes
from hyperbox.memory.decisions import Action, Decision, TunerState
from hyperbox.paths import user_directory

__all__ = [
    "AuditEntry",
    "Story",
    "Trail",
    "as_line",
    "parse_trail",
    "read_trail",
    "stories",
    "trail_file",
    "trail_files",
]

_SYSTEM = Path("/var/log/hyperbox")
_NAME = "decisions.jsonl"
_LATEST_S = 253_000_000_000  # the year 9987: what localtime(3) and datetime can name
_MOST_BYTES = 1 << 20  # some thousand decisions; the file before is kept beside it
_BEGINNINGS = (Action.APPLY, Action.PREPARE)


@dataclass(frozen=True)
class AuditEntry:
    """A decision, when it was made (seconds of the wall clock), and by which process."""

    unix_s: float
    pid: int
    decision: Decision

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values; ``time`` is local, for people."""
        local = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.unix_s))
        stamp = {"time": local, "time_unix_s": round(self.unix_s, 3), "pid": self.pid}
        return stamp | self.decision.as_json()


@dataclass(frozen=True)
class Story:
    """Something that was decided, and what became of that step until it was made again."""

    began: AuditEntry
    then: tuple[AuditEntry, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values: the beginning, and ``then`` what followed."""
        return self.began.as_json() | {"then": [entry.as_json() for entry in self.then]}


class Trail:
    """Appends to a trail; one process at a time does (the tuner's lock sees to that)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cut = False

    def add(self, entry: AuditEntry) -> None:
        """Append an entry.

        Raises
        ------
        HarnessError
            If it cannot be written; the trail lacks it then.
        """
        data = b"\n" * self._cut + as_line(entry).encode() + b"\n"
        try:
            self._append(data)
        except OSError as error:
            raise HarnessError(
                f"cannot keep the trail {self.path}: {error.strerror or error}",
                hint="make room there, or set HYPERBOX_STATE to another directory",
            ) from error

    def _append(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_size > _MOST_BYTES:
                self.path.replace(self.path.with_suffix(".old"))
        handle = os.open(
            self.path,
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o644,
        )
        try:
            os.fchmod(handle, 0o644)  # whatever the umask: who may ask is not only root
            self._cut = os.write(handle, data) < len(data)
        finally:
            os.close(handle)
        if self._cut:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def as_line(entry: AuditEntry) -> str:
    """Return an entry as one line of a trail."""
    said = {"at": round(entry.unix_s, 3), "pid": entry.pid, **entry.decision.as_json()}
    return json.dumps(said, separators=(",", ":"))


def parse_trail(text: str) -> tuple[AuditEntry, ...]:
    """Return the entries of a trail; other lines (cut short, a later version's) are left out.

    Pure.
    """
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            found.append(_entry(parse_json(line)))
    return tuple(found)


def read_trail(path: Path) -> tuple[AuditEntry, ...]:
    """Read a trail and the file before it, oldest first; empty if there is none.

    Raises
    ------
    ConfigError
        If it is not a file or may not be read.
    OSError
        If its directory may not be searched.
    """
    found: tuple[AuditEntry, ...] = ()
    for part in (path.with_suffix(".old"), path):
        with contextlib.suppress(FileNotFoundError):
            part.stat()
            data = read_bytes(part, refusal=ConfigError)
            found += parse_trail(data.decode(errors="replace"))
    return found


def stories(entries: Sequence[AuditEntry]) -> tuple[Story, ...]:
    """Return what was decided, each beginning of a step with what followed; oldest first. Pure.

    What follows is kept, reverted and restored by the same process, or undone by somebody else.
    """
    grouped: list[tuple[AuditEntry, list[AuditEntry]]] = []
    open_steps: dict[tuple[int, str], list[AuditEntry]] = {}
    for entry in entries:
        decision = entry.decision
        followed = [
            then
            for (pid, step), then in open_steps.items()
            if pid == entry.pid and _is_about(decision, step)
        ]
        for then in followed:
            then.append(entry)
        if followed and decision.action not in _BEGINNINGS:
            continue
        grouped.append((entry, []))
        if decision.action in _BEGINNINGS:
            open_steps[entry.pid, decision.step] = grouped[-1][1]
    return tuple(Story(began, tuple(then)) for began, then in grouped)


def trail_file() -> Path:
    """Return where this user's tuner keeps its trail.

    That is ``$HYPERBOX_STATE``, else ``/var/log/hyperbox`` for root, else below
    ``$XDG_STATE_HOME`` (XDG base directory specification).
    """
    chosen = os.environ.get("HYPERBOX_STATE")
    if chosen:
        return Path(chosen).resolve() / _NAME
    if os.geteuid() == 0:
        return _SYSTEM / _NAME
    return user_directory("XDG_STATE_HOME", ".local/state") / "hyperbox" / _NAME


def trail_files() -> tuple[Path, ...]:
    """Return where trails that concern this user may be: the user's own first, then root's."""
    if os.environ.get("HYPERBOX_STATE"):
        return (trail_file(),)
    return tuple(dict.fromkeys((trail_file(), _SYSTEM / _NAME)))


def _is_about(decision: Decision, step: str) -> bool:
    if decision.action in _BEGINNINGS and decision.step == step:
        return False
    lost = any(change.startswith(f"{step} was undone by") for change in decision.changes)
    return lost or decision.step == step


def _entry(value: Mapping[str, object]) -> AuditEntry:
    changes = value.get("changes", [])
    if not isinstance(changes, list):
        raise TypeError("changes is a list")
    decision = Decision(
        int(_number(value["time_ns"])),
        TunerState(str(value["state"])),
        Action(str(value["action"])),
        str(value["step"]),
        str(value["reason"]),
        score=_number(value["score"]),
        memory_some=_number(value["memory_some"]),
        io_some=_number(value["io_some"]),
        swap_ins=_number(value["swap_ins"]),
        changes=tuple(map(str, changes)),
    )
    unix_s = _number(value["at"])
    if not 0 <= unix_s < _LATEST_S:
        raise ValueError(f"{unix_s!r} is not a time")
    return AuditEntry(unix_s, int(_number(value["pid"])), decision)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a number")
    return value
