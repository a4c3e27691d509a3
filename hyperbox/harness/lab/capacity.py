"""How many guests this machine carries, and memory for one that is being made.

A guest's memory is a file in memory while its snapshot is made, whose pages are taken one by
one: of free memory that two threads both have seen, one of them ends without. So memory is
reserved before, and counted until the snapshot is made.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from hyperbox.errors import HarnessError

__all__ = ["MemoryReservation", "cells_at_once", "free_memory"]

_EMULATOR_BYTES = 384 << 20  # QEMU itself, its translated code included


def cells_at_once(wanted: int, guest: int, memory: int) -> int:
    """Return how many cells can be measured at once, at least 1.

    Parameters
    ----------
    wanted
        As many as asked for, or one per processor.
    guest
        Bytes of a guest's memory.
    memory
        Bytes free in the machine.
    """
    return max(1, min(wanted, memory // (guest + _EMULATOR_BYTES)))


def free_memory(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the bytes that new processes can have without swapping (proc(5), MemAvailable).

    Raises
    ------
    HarnessError
        If the kernel does not say.
    """
    for line in meminfo.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) << 10
    raise HarnessError(f"{meminfo} has no MemAvailable")


class MemoryReservation:
    """Memory for guests that are being made by the threads of this process."""

    def __init__(self, free: Callable[[], int] = free_memory) -> None:
        self._free = free
        self._lock = threading.Lock()
        self._growing: dict[FileIO, int] = {}

    @contextlib.contextmanager
    def growing(self, file: FileIO, size: int) -> Iterator[None]:
        """Hold memory for a file in memory that grows to `size` bytes in the block.

        Raises
        ------
        HarnessError
            If less is free than it and the other growing files may yet take.
        """
        with self._lock:
            promised = sum(size - _taken(other) for other, size in self._growing.items())
            free = self._free() - promised
            if free < size:
                raise HarnessError(
                    f"{max(0, free) >> 20} MiB of memory are free, a guest needs {size >> 20} MiB",
                    hint="run with fewer --jobs",
                )
            self._growing[file] = size
        try:
            yield
        finally:
            with self._lock:
                del self._growing[file]


def _taken(file: FileIO) -> int:
    """Return the bytes that a file has taken already."""
    return 0 if file.closed else os.fstat(file.fileno()).st_blocks * 512
