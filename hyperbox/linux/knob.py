"""Kernel settings that are one small file each: procfs, sysfs, configfs, cgroupfs.

Such files are written in place by a single write(2): the kernel takes the value or
refuses it, there is nothing to make atomic.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing, WorkloadError

__all__ = ["changed", "read_knob", "sysctl", "write_knob"]

_MISSING = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def sysctl(name: str) -> Path:
    """Give the file of a sysctl, ``vm.swappiness`` -> ``/proc/sys/vm/swappiness``."""
    return Path("/proc/sys").joinpath(*name.split("."))


def read_knob(path: Path) -> str:
    """Give a setting's text without surrounding white space.

    Raises
    ------
    KernelFeatureMissing
        If this kernel has no such setting.
    WorkloadError
        If it may not be read.
    """
    try:
        return path.read_text().strip()
    except OSError as error:
        raise _explained(error, f"cannot read {path}") from error


def write_knob(path: Path, value: str | int) -> None:
    """Give a setting a value.

    Raises
    ------
    KernelFeatureMissing
        If this kernel has no such setting.
    WorkloadError
        If the kernel refuses the value or the caller.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, str(value).encode())
        finally:
            os.close(handle)
    except OSError as error:
        raise _explained(error, f"cannot write {value!r} to {path}") from error


@contextlib.contextmanager
def changed(path: Path, value: str | int) -> Iterator[str]:
    """Give a setting a value for the block; gives the original, which is put back after.

    A value that somebody else has written meanwhile is left alone.
    """
    original = read_knob(path)
    write_knob(path, value)
    ours = read_knob(path)
    try:
        yield original
    finally:
        if read_knob(path) == ours:
            write_knob(path, original)


def _explained(error: OSError, what: str) -> WorkloadError | KernelFeatureMissing:
    message = f"{what}: {error.strerror or error}"
    if error.errno in _MISSING:
        return KernelFeatureMissing(message)
    hint = "run as root" if error.errno in _FORBIDDEN else ""
    return WorkloadError(message, hint=hint)
