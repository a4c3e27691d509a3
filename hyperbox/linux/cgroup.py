"""Control groups, version 2: make one, limit it, move processes, remove it.

Follows Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.journal import ChangeKind, Sharing, UndoOutcome, begin, exclusively, on_record
from hyperbox.linux.knob import read_knob, write_knob
from hyperbox.linux.mounts import mounts
from hyperbox.linux.refusal import refusal
from hyperbox.records import Change

__all__ = ["CGROUP", "CONTROLLER", "Cgroup", "cgroup", "cgroup_root", "parse_flat_keyed"]

_PATIENCE_S = 5.0  # a cgroup stays busy until its last task is reaped


class Cgroup:
    """A cgroup that exists, by its directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def limit(self, name: str, value: str | int) -> None:
        """Write one of its files, for example ``memory.max`` in bytes."""
        write_knob(self.directory / name, value)

    def read(self, name: str) -> str:
        """Read one of its files."""
        return read_knob(self.directory / name)

    def counters(self, name: str) -> dict[str, int]:
        """Read a file of ``key value`` lines, for example ``memory.stat``."""
        return parse_flat_keyed(self.read(name))

    def add(self, pid: int) -> None:
        """Move a process here, with all its threads."""
        self.limit("cgroup.procs", pid)

    def processes(self) -> tuple[int, ...]:
        """Return the processes in it."""
        return tuple(int(word) for word in self.read("cgroup.procs").split())

    def remove(self) -> None:
        """Move what still runs in it to its parent and remove it, cgroups below it first.

        Raises
        ------
        WorkloadError
            If it stays busy for 5 s.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while not self._removed(deadline):
            self._emptied()
            time.sleep(0.01)

    def _emptied(self) -> None:
        """Move processes up and remove what is below; whatever ends or goes meanwhile is done."""
        with contextlib.suppress(KernelFeatureMissing, FileNotFoundError):
            for below in [path for path in self.directory.iterdir() if path.is_dir()]:
                Cgroup(below).remove()
            for pid in self.processes():
                with contextlib.suppress(WorkloadError, KernelFeatureMissing):
                    Cgroup(self.directory.parent).add(pid)

    def _removed(self, deadline: float) -> bool:
        try:
            self.directory.rmdir()
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise refusal(f"cannot remove {self.directory}", error) from error
            return False
        return True


def cgroup_root() -> Path:
    """Return where cgroup v2 is mounted, purely or beside version 1.

    Raises
    ------
    KernelFeatureMissing
        If it is mounted nowhere.
    """
    found = mounts("cgroup2")
    if not found:
        raise KernelFeatureMissing("cgroup v2 is not mounted")
    return found[0].point


@contextlib.contextmanager
def cgroup(
    name: str, *, controllers: Sequence[str] = (), root: Path | None = None
) -> Iterator[Cgroup]:
    """Return a new cgroup below `root` (default: the hierarchy's root); it is removed after.

    `controllers` are switched on for the children of `root` where they are not, and off
    again at the end, by the last process that used them. Journalled.

    Raises
    ------
    KernelFeatureMissing
        If cgroup v2 is not mounted or a controller is not available in it.
    """
    top = cgroup_root() if root is None else root
    with contextlib.ExitStack() as stack:
        for controller in controllers:
            _enable(stack, top, controller)
        group = Cgroup(top / name)
        record = begin(CGROUP, group.directory)
        try:
            group.directory.mkdir()
        except OSError as error:
            record.forget()
            raise refusal(f"cannot make {group.directory}", error) from error
        stack.callback(record.undo)
        record.note(inode=group.directory.stat().st_ino)
        yield group


def parse_flat_keyed(text: str) -> dict[str, int]:
    """Parse ``key value`` lines; ValueError if a line is anything else."""
    values = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values[key] = int(value)
    return values


def _enable(stack: contextlib.ExitStack, top: Path, controller: str) -> None:
    if controller not in read_knob(top / "cgroup.controllers").split():
        raise KernelFeatureMissing(f"cgroup v2 at {os.fspath(top)} has no {controller} controller")
    knob = top / "cgroup.subtree_control"
    subject = f"{controller} of {top}"
    with exclusively():
        enabled = controller in read_knob(knob).split()
        if not enabled or on_record(CONTROLLER, subject):
            record = begin(CONTROLLER, subject, knob=os.fspath(knob), controller=controller)
            stack.callback(record.undo)
        if not enabled:
            write_knob(knob, f"+{controller}")


def _undo_cgroup(change: Change) -> UndoOutcome:
    if not _is_there(change):
        return UndoOutcome.NOTHING
    Cgroup(Path(change.subject)).remove()
    return UndoOutcome.UNDONE


def _is_there(change: Change) -> bool:
    """Whether the cgroup exists; one made again by somebody has another inode."""
    try:
        inode = Path(change.subject).stat().st_ino
    except FileNotFoundError:
        return False
    return change.facts.get("inode", inode) == inode


def _describe_cgroup(change: Change) -> str:
    return f"cgroup {change.subject} is there, was not" if _is_there(change) else ""


def _undo_controller(change: Change) -> UndoOutcome:
    knob, controller = Path(change.text("knob")), change.text("controller")
    try:
        if controller not in read_knob(knob).split():
            return UndoOutcome.NOTHING
        write_knob(knob, f"-{controller}")
    except KernelFeatureMissing:
        return UndoOutcome.NOTHING
    except WorkloadError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EBUSY:
            return UndoOutcome.SHARED  # a cgroup below has begun to use it
        raise
    return UndoOutcome.UNDONE


def _describe_controller(change: Change) -> str:
    with contextlib.suppress(KernelFeatureMissing):
        if change.text("controller") in read_knob(Path(change.text("knob"))).split():
            return f"controller {change.subject} is on for its children, was off"
    return ""


CGROUP = ChangeKind("cgroup", _describe_cgroup, _undo_cgroup)
"""A cgroup by its directory: fact `inode`, which the kernel does not give twice."""

CONTROLLER = ChangeKind("controller", _describe_controller, _undo_controller, Sharing.LAST)
"""A controller that is on for the children of a cgroup: facts `knob`, `controller`."""
