"""Files without a name: nobody else can prepare, open or find them.

A name in /dev/shm or the temporary directory can be taken beforehand, by a file or a link of
another user (CWE-377), and outlives a killed process. Descriptors cannot, and the kernel frees
what they hold with the last process that has one, in whatever pid namespace that is. Programs
that want a path get proc_pid_fd(5)'s.
"""

from __future__ import annotations

import errno
import os
import tempfile
from io import FileIO
from pathlib import Path

from hyperbox.errors import HarnessError

__all__ = ["content", "in_memory", "inherited_path", "on_disk"]

_MFD_NOEXEC_SEAL = 0x8  # <linux/memfd.h>; demanded by vm.memfd_noexec=2, unknown before 6.3


def in_memory(label: str) -> FileIO:
    """Return an empty file in memory (memfd_create(2)); `label` is for people who look at /proc.

    Raises
    ------
    HarnessError
        If this process has no descriptor left.
    """
    name = f"hyperbox-{label}"
    try:
        try:
            handle = os.memfd_create(name, os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            handle = os.memfd_create(name, os.MFD_CLOEXEC)
    except OSError as error:
        raise HarnessError(f"cannot make a file in memory: {error.strerror}") from error
    os.fchmod(handle, 0o600)
    return FileIO(handle, "r+")


def on_disk() -> FileIO:
    """Return an empty file in the temporary directory, which may be large.

    Raises
    ------
    HarnessError
        If no temporary directory can be written.
    """
    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError as error:
        raise HarnessError(
            f"cannot make a temporary file: {error.strerror or error}",
            hint="set TMPDIR to a directory that can be written",
        ) from error


def inherited_path(file: FileIO) -> Path:
    """Return the path by which a program that inherits the descriptor opens the file itself."""
    return Path(f"/proc/self/fd/{file.fileno()}")


def content(file: FileIO) -> bytes:
    """Return what is in the file, whoever wrote it; nothing once it is closed."""
    if file.closed:
        return b""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
