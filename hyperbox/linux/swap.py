"""Swap devices: swapon(2), swapoff(2) and ``/proc/swaps``."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing
from hyperbox.processes import run

__all__ = ["SwapArea", "active", "areas", "parse_areas"]

_SWAP_FLAG_PREFER = 0x8000  # include/linux/swap.h
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class SwapArea:
    """One line of ``/proc/swaps``: sizes in KiB; a higher priority is used first."""

    path: str
    kind: str
    size_kib: int
    used_kib: int
    priority: int


def parse_areas(text: str) -> tuple[SwapArea, ...]:
    """Parse the text of ``/proc/swaps``."""
    rows = (line.split() for line in text.splitlines()[1:])
    return tuple(
        SwapArea(
            row[0].encode().decode("unicode_escape"), row[1], int(row[2]), int(row[3]), int(row[4])
        )
        for row in rows
    )


def areas() -> tuple[SwapArea, ...]:
    """Give the swap areas in use now."""
    return parse_areas(Path("/proc/swaps").read_text())


@contextlib.contextmanager
def active(device: Path, *, priority: int) -> Iterator[None]:
    """Format a device as swap and use it for the block.

    Raises
    ------
    KernelFeatureMissing
        If the kernel refuses it.
    """
    run(["mkswap", device], timeout=60)
    flags = _SWAP_FLAG_PREFER | priority
    if _libc.swapon(os.fsencode(device), flags) != 0:
        raise _refused("swapon", device)
    try:
        yield
    finally:
        if _libc.swapoff(os.fsencode(device)) != 0 and ctypes.get_errno() != errno.EINVAL:
            raise _refused("swapoff", device)


def _refused(call: str, device: Path) -> KernelFeatureMissing:
    reason = os.strerror(ctypes.get_errno())
    return KernelFeatureMissing(f"{call} of {device} failed: {reason}")
