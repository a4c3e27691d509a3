"""How often a tracepoint was passed by a process and what it starts: perf_event_open(2)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyperbox.linux.refusal import refusal

__all__ = ["TracepointCounter", "tracepoint_counter"]

_PERF_EVENT_OPEN = 298  # on x86-64
_TYPE_TRACEPOINT = 2  # PERF_TYPE_TRACEPOINT of <linux/perf_event.h>
_DISABLED, _INHERIT, _ENABLE_ON_EXEC = 1 << 0, 1 << 1, 1 << 12
_CLOEXEC = 8  # PERF_FLAG_FD_CLOEXEC
# type, size, config, sample_period, sample_type, read_format, flags, and the rest of VER0
_ATTRIBUTES = struct.Struct("<IIQQQQQIIQ")


class TracepointCounter:
    """A counter that is open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> int:
        """Return the count; processes that have ended are in it."""
        return int(struct.unpack("<Q", os.read(self._descriptor, 8))[0])


@contextmanager
def tracepoint_counter(tracing: Path, tracepoint: str, process: int) -> Iterator[TracepointCounter]:
    """Count from the next execve(2) of a process on, after that call has entered.

    Parameters
    ----------
    tracing
        Where tracefs is mounted.
    tracepoint
        Such as ``raw_syscalls/sys_enter``.

    Raises
    ------
    KernelFeatureMissing
        If the kernel does not have it.
    WorkloadError
        If it refuses.
    """
    try:
        number = int((tracing / "events" / tracepoint / "id").read_text())
    except OSError as error:
        raise refusal(f"no tracepoint {tracepoint}", error, missing=(errno.ENOENT,)) from None
    flags = _DISABLED | _INHERIT | _ENABLE_ON_EXEC
    attributes = _ATTRIBUTES.pack(
        _TYPE_TRACEPOINT, _ATTRIBUTES.size, number, 0, 0, 0, flags, 0, 0, 0
    )
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(_PERF_EVENT_OPEN, attributes, process, -1, -1, _CLOEXEC)
    if descriptor < 0:
        raise refusal(f"cannot count {tracepoint}", ctypes.get_errno())
    try:
        yield TracepointCounter(descriptor)
    finally:
        os.close(descriptor)
