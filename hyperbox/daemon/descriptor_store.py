"""Descriptors that outlive this process: its supervisor keeps copies, and the next one gets them.

A file, pipe, fanotify group or cachefiles device goes on as long as somebody holds it open. The
protocol is systemd's, sd_notify(3) with ``FDSTORE=1`` and sd_listen_fds(3): systemd keeps what
a unit with ``FileDescriptorStoreMax=`` sends, and so does `hyperbox.daemon.supervisor`.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping
from functools import cache

from hyperbox.daemon.notify import notify

__all__ = ["FIRST", "forget", "inherited", "keep"]

FIRST = 3
"""Number of the first inherited descriptor: SD_LISTEN_FDS_START."""

_NAME = re.compile(r"[!-9;-~]{1,255}")  # printable ASCII without colon and space


def keep(name: str, descriptor: int) -> bool:
    """Leave a copy of a descriptor with the supervisor; return whether there is one.

    One name, one descriptor: systemd gives those of one name back in any order. What was
    inherited under a name is kept already, until `forget`. With FDPOLL=0 (systemd 246) a pipe
    is kept when its other end goes, too.

    Raises
    ------
    ValueError
        If the name is not 1 to 255 printable ASCII characters without colon and space.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a name for a descriptor")
    return notify("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=[descriptor])


def forget(name: str) -> bool:
    """Let the supervisor close what it keeps under a name; return whether there is one."""
    return notify("FDSTOREREMOVE=1", f"FDNAME={name}")


@cache
def inherited() -> Mapping[str, int]:
    """Return the descriptors that an earlier process has left, by name; the same at each call.

    No child inherits them, nor the variables that announce them.
    """
    count, pid, names = (
        os.environ.pop(variable, "") for variable in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, int] = {}
    for place, name in enumerate(names.split(":")[: int(count)]):
        fcntl.fcntl(FIRST + place, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        found[name] = FIRST + place
    return found
