"""How many guests this machine carries, and room for one that is being made.

A guest's memory is a file in a tmpfs while its snapshot is made, whose pages are taken one
by one: free space that two threads both have seen ends one of them with SIGBUS. So room is
reserved before, and counted until the snapshot is made.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import HarnessError

__all__ = ["MemoryReservation", "cells_at_once", "free_memory", "free_shared_memory"]

_EMULATOR_BYTES = 384 << 20  # QEMU itself, its translated code included


def cells_at_once(wanted: int, guest: int, memory: int, shared: int) -> int:
    """Return how many cells can be measured at once, at least 1.

    Parameters
    ----------
    wanted
        As many as asked for, or one per processor.
    guest
        Bytes of a guest's memory.
    memory, shared
        Bytes free in the machine and in the tmpfs of the guests' memory.
    """
    return max(1, min(wanted, memory // (guest + _EMULATOR_BYTES), shared // guest))


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


def free_shared_memory(directory: Path) -> int:
    """Return the bytes free in a tmpfs, as far as the machine's memory backs them."""
    space = os.statvfs(directory)
    return min(space.f_bavail * space.f_frsize, free_memory())


class MemoryReservation:
    """Room in a tmpfs for guests' memory, shared by the threads of this process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._growing: dict[Path, int] = {}

    @contextlib.contextmanager
    def growing(self, file: Path, size: int) -> Iterator[None]:
        """Hold room for a file that grows to `size` bytes in the block.

        Raises
        ------
        HarnessError
            If less is free than it and the other growing files may yet take.
        """
        with self._lock:
            promised = sum(size - _taken(path) for path, size in self._growing.items())
            free = free_shared_memory(self._directory) - promised
            if free < size:
                raise HarnessError(
                    f"{self._directory} has {max(0, free) >> 20} MiB free, "
                    f"a guest needs {size >> 20} MiB",
                    hint="run with fewer --jobs, or `hyperbox doctor --repair` to clear leftovers",
                )
            self._growing[file] = size
        try:
            yield
        finally:
            with self._lock:
                del self._growing[file]


def _taken(path: Path) -> int:
    """Return the bytes that a file has taken already."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_blocks * 512
    return 0
