"""Giving up page cache that will not be read again: fadvise and ``memory.reclaim``.

Follows posix_fadvise(2) and Documentation/admin-guide/cgroup-v2.rst: ``memory.reclaim`` is in
Linux 5.19 (94968384dde1), its ``swappiness=`` key, without which it may swap out instead, in 6.9
(68cd9050d871). Only clean, unmapped pages go; the next read fetches them again. The machine's
caches as a whole are never dropped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from hyperbox.errors import HyperboxError, WorkloadError
from hyperbox.linux.cgroup import Cgroup
from hyperbox.linux.knob import write_knob

__all__ = ["can_reclaim_files", "drop_open_files", "reclaim_files"]

_CHUNK = 256 << 20  # one write asks for at most this: it returns only when it is done
# No O_NOATIME: it is refused for files of others, and opening touches no access time.
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def can_reclaim_files(group: Path) -> bool:
    """Whether this cgroup's files can be reclaimed apart from its anonymous memory."""
    try:
        write_knob(group / "memory.reclaim", "0 swappiness=0")
    except HyperboxError:
        return False
    return True


def reclaim_files(group: Path) -> int:
    """Ask the kernel to reclaim the cgroup's page cache that was used once; return the bytes asked.

    Raises
    ------
    KernelFeatureMissing
        If the cgroup is gone or this kernel cannot.
    WorkloadError
        If the kernel refuses.
    """
    used_once = Cgroup(group).counters("memory.stat").get("inactive_file", 0)
    wanted = min(used_once, _CHUNK)
    if not wanted:
        return 0
    try:
        write_knob(group / "memory.reclaim", f"{wanted} swappiness=0")
    except WorkloadError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno != errno.EAGAIN:
            raise  # else less than asked for could be reclaimed
    return wanted


def drop_open_files(pid: int) -> int:
    """Drop the clean cached pages of the regular files that a process has open; count the files.

    A process that has ended, or that one may not look into, has none.
    """
    dropped = 0
    with contextlib.suppress(OSError):
        for link in list(Path(f"/proc/{pid}/fd").iterdir()):
            with contextlib.suppress(OSError):
                dropped += _dropped(link)
    return dropped


def _dropped(link: Path) -> bool:
    """Look before opening: to open a device or a FIFO would have effects.

    What is looked at is held, so that nothing else can be opened in its place.
    """
    held = os.open(link, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(held).st_mode):
            return False
        handle = os.open(f"/proc/self/fd/{held}", _OPEN)
    finally:
        os.close(held)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
    return True
