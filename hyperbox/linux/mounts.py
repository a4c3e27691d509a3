"""Mounted file systems and mount(2), umount2(2). Follows proc_pid_mountinfo(5)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperbox.journal import ChangeKind, Sharing, UndoOutcome, begin, exclusively, on_record
from hyperbox.linux.refusal import refusal
from hyperbox.records import Change

__all__ = [
    "MOUNT",
    "Mount",
    "mount",
    "mounted",
    "mounted_elsewhere",
    "mounts",
    "parse_mountinfo",
    "unescape",
    "unmount",
]

_OCTAL = re.compile(r"\\([0-7]{3})")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo: where, what kind, from what, and the super block's options."""

    point: Path
    root: str
    kind: str
    source: str
    super_options: tuple[str, ...]
    device: str = ""
    """Of its super block, ``major:minor``."""


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Parse ``/proc/*/mountinfo``; ValueError names a line of unknown shape."""
    return tuple(_mount(line) for line in text.split("\n") if line)


def mounts(kind: str) -> tuple[Mount, ...]:
    """Return this process's mounts of a file system type, in the order they were made."""
    # Only "\n" ends a line: names may hold everything else that Python takes for an end of one.
    text = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape")
    return tuple(found for found in parse_mountinfo(text) if found.kind == kind)


def mounted_elsewhere(kind: str, device: str, point: Path) -> tuple[int, Path] | None:
    """Return a process that has a file system at another place than a point, and that place.

    Containers have namespaces of their own, where an unmount of the point changes nothing.

    Parameters
    ----------
    device
        Of the super block, as `Mount.device`; the kernel gives numbers again that are free.
    """
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError, ValueError):  # it has ended
                text = (process / "mountinfo").read_bytes().decode(errors="surrogateescape")
                for one in parse_mountinfo(text):
                    if (one.kind, one.device) == (kind, device) and one.point != point:
                        return int(process.name), one.point
    return None


def mount(
    kind: str, point: Path, *, source: str | None = None, flags: int = 0, options: str = ""
) -> None:
    """Mount a file system.

    Parameters
    ----------
    options
        The file system's own, separated by commas; at most a page of them.

    Raises
    ------
    KernelFeatureMissing
        If the kernel does not know the type, or wants a block device as source (ENOTBLK: the
        type cannot be mounted from a file there).
    WorkloadError
        On any other refusal.
    """
    arguments = [os.fsencode(source or kind), os.fsencode(point), kind.encode()]
    data = ctypes.c_char_p(os.fsencode(options)) if options else None
    if _libc.mount(*map(ctypes.c_char_p, arguments), ctypes.c_ulong(flags), data) != 0:
        what = f"cannot mount {kind} on {point}"  # ENODEV: no file system of that type
        raise refusal(what, ctypes.get_errno(), missing=(errno.ENODEV, errno.ENOTBLK))


def unmount(point: Path, *, detach: bool = False) -> None:
    """Unmount; WorkloadError if the kernel refuses.

    Parameters
    ----------
    detach
        Whether it goes from the tree at once, also when it is busy, and ends with its last use
        (``MNT_DETACH``).
    """
    if _libc.umount2(ctypes.c_char_p(os.fsencode(point)), ctypes.c_int(2 if detach else 0)) != 0:
        raise refusal(f"cannot unmount {point}", ctypes.get_errno())


@contextlib.contextmanager
def mounted(kind: str, point: Path) -> Iterator[Path]:
    """Return where `kind` is mounted; mounts it on `point` for the block if it is nowhere.

    Journalled. Where several processes use such a mount, the last one unmounts it.
    """
    with contextlib.ExitStack() as stack:
        with exclusively():
            existing = mounts(kind)
            where = existing[0].point if existing else point
            if not existing or on_record(MOUNT, where):
                stack.callback(begin(MOUNT, where, file_system=kind).undo)
            if not existing:
                mount(kind, point)
        yield where


def _undo(change: Change) -> UndoOutcome:
    if not _is_mounted(change):
        return UndoOutcome.NOTHING
    unmount(Path(change.subject))
    return UndoOutcome.UNDONE


def _describe(change: Change) -> str:
    text = f"{change.text('file_system')} is mounted on {change.subject}, was not"
    return text if _is_mounted(change) else ""


def _is_mounted(change: Change) -> bool:
    return any(str(found.point) == change.subject for found in mounts(change.text("file_system")))


MOUNT = ChangeKind("mount", _describe, _undo, Sharing.LAST)
"""A mount of a file system that was mounted nowhere: fact `file_system`."""


def _mount(line: str) -> Mount:
    before, separator, after = line.partition(" - ")
    front, back = before.split(" "), after.split(" ")
    if not separator or len(front) < 6 or len(back) < 3:
        raise ValueError(f"not a line of mountinfo: {line!r}")
    options = tuple(back[2].split(","))
    point, root, source = (unescape(field) for field in (front[4], front[3], back[1]))
    return Mount(Path(point), root, back[0], source, options, front[2])


def unescape(field: str) -> str:
    """Undo the octal escapes of space, tab, newline and backslash."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
