"""Pre-content events of fanotify(7), Linux 6.14: asked before a file's bytes are read.

A *group* gets an event before each read of a marked file, and each page fault on it, with the
range; the reader waits for the answer. The file's bytes can be put there through the event's own
descriptor, which raises no events.

It fails open: once the last descriptor of a group is closed, by a death as well, pending and
later reads go on as if nothing was marked, and find the holes of a sparse file. So descriptors
of a group belong to several processes. Events that a dead process had taken and not answered
can be answered by any other by their numbers: `deny_lost`.

The queue is unlimited on purpose. A permission event that finds the queue full is *allowed*
(fanotify_handle_event() of fs/notify/fanotify/fanotify.c: fsnotify_insert_event() returns 2, and
that becomes 0); and each belongs to a task that waits, so there are no more than tasks.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperbox.linux.refusal import refusal

__all__ = [
    "AccessEvent",
    "deny_lost",
    "mark_file",
    "open_group",
    "parse_events",
    "read_events",
    "unmark_file",
]

_INIT, _MARK = 300, 301  # system calls of x86-64
_CLOEXEC, _NONBLOCK, _PRE_CONTENT, _UNLIMITED_QUEUE = 0x1, 0x2, 0x8, 0x10
_ADD, _REMOVE = 0x1, 0x2
_PRE_ACCESS, _OVERFLOW = 0x0010_0000, 0x4000
_ALLOW, _DENY = 1, 2
_RANGE = 6  # FAN_EVENT_INFO_TYPE_RANGE
_LARGE_FILE = 0o100000
_AT_FDCWD = -100
_META = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_INFO = struct.Struct("=BBH")
_RANGE_INFO = struct.Struct("=BBHIQQ")
_RESPONSE = struct.Struct("=iI")
_MOST_FILES = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class AccessEvent:
    """A reader that waits for a range of a marked file."""

    handle: int
    """Descriptor of the file, of this process; the answer names it. Close it afterwards."""
    offset: int
    length: int
    pid: int

    def allow(self, group: int) -> None:
        """Let the reader read."""
        _respond(group, self.handle, _ALLOW)

    def deny(self, group: int, number: int = errno.EIO) -> None:
        """Let the reader fail with an errno."""
        _respond(group, self.handle, _denial(number))


def open_group() -> int:
    """Return the descriptor of a new group; reading does not block.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no pre-content events.
    WorkloadError
        On any other refusal.
    """
    flags = _PRE_CONTENT | _CLOEXEC | _NONBLOCK | _UNLIMITED_QUEUE
    opening = os.O_RDWR | _LARGE_FILE | os.O_CLOEXEC
    group: int = _libc.syscall(_INIT, ctypes.c_uint(flags), ctypes.c_uint(opening))
    if group < 0:
        raise refusal(
            "no fanotify group for pre-content events", ctypes.get_errno(), missing=(errno.EINVAL,)
        )
    return group


def mark_file(group: int, path: Path) -> None:
    """Ask the group before reads of a file.

    Raises
    ------
    KernelFeatureMissing
        If the kernel (before 6.14: EINVAL) or the file system (EOPNOTSUPP: tmpfs, overlayfs) has no
        pre-content events.
    WorkloadError
        On any other refusal.
    """
    _change_mark(group, _ADD, path)


def unmark_file(group: int, path: Path) -> None:
    """Ask no more before reads of a file; as `mark_file`."""
    _change_mark(group, _REMOVE, path)


def read_events(group: int) -> list[AccessEvent]:
    """Return the events that wait; empty if there are none."""
    try:
        return list(parse_events(os.read(group, 1 << 16)))
    except BlockingIOError:
        return []


def parse_events(data: bytes) -> Iterator[AccessEvent]:
    """Return the events that a read of a group has returned; pure.

    Raises
    ------
    ValueError
        If they are of an unknown shape: then what was asked for is not known.
    """
    place = 0
    while place < len(data):
        if len(data) - place < _META.size:
            raise ValueError("a fanotify event of unknown shape")
        length, version, _, head, mask, handle, pid = _META.unpack_from(data, place)
        if version != 3 or length < head or head < _META.size or place + length > len(data):
            raise ValueError("a fanotify event of unknown shape")
        if not mask & _OVERFLOW:
            offset, count = _range(data[place + head : place + length])
            yield AccessEvent(handle, offset, count, pid)
        place += length


def deny_lost(group: int, number: int = errno.EIO) -> int:
    """Deny what a dead process of the group has taken and not answered; return how many.

    Answers name events by the number that the descriptor had in the process that took them, and
    the kernel looks for it among those that wait for answers only (ENOENT otherwise). So all
    numbers that a process can have had are tried. The caller must have taken no event itself.
    """
    limit = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], _MOST_FILES)
    denied = 0
    for handle in range(limit):
        try:
            while True:  # two processes may have had the same number
                os.write(group, _RESPONSE.pack(handle, _denial(number)))
                denied += 1
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
    return denied


def _range(info: bytes) -> tuple[int, int]:
    """Return offset and length of an event's range; of a whole file if it says none."""
    place = 0
    while place + _INFO.size <= len(info):
        kind, _, length = _INFO.unpack_from(info, place)
        if kind == _RANGE and place + _RANGE_INFO.size <= len(info):
            *_, offset, count = _RANGE_INFO.unpack_from(info, place)
            return offset, count
        place += max(length, _INFO.size)
    return 0, 1 << 62


def _change_mark(group: int, change: int, path: Path) -> None:
    done = _libc.syscall(
        _MARK,
        ctypes.c_int(group),
        ctypes.c_uint(change),
        ctypes.c_uint64(_PRE_ACCESS),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(path)),
    )
    if done < 0:
        missing = (errno.EINVAL, errno.EOPNOTSUPP)
        raise refusal(f"no pre-content events for {path}", ctypes.get_errno(), missing=missing)


def _denial(number: int) -> int:
    return _DENY | (number << 24)  # FAN_DENY_ERRNO


def _respond(group: int, handle: int, response: int) -> None:
    try:
        os.write(group, _RESPONSE.pack(handle, response))
    except OSError as error:
        if error.errno != errno.ENOENT:  # the reader was killed
            raise
