"""Starts a program again from a start of its own: ``start.py NAME PROGRAM [ARGUMENT ...]``.

Arms of a block share their start, so two equal ones would do the same to the nanosecond and
prove nothing. Here each makes its own out of the block's seed and its name: phase, size of
the environment, free pages, and by a new process the layout of addresses. What arms differ
by is then what starts differ by, which is more than gates usually meet.

It imports next to nothing: its start is measured in every arm.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
import zlib

from hyperbox.linux.random_pool import reseed_crng

__all__ = ["main", "number"]

_MAX_DELAY_NS = 20_000_000  # like a block's start: any phase of the scheduler's tick,
_MAX_PADDING = 2048  # bytes of environment,
_MAX_NOISE_PAGES = 1024  # pages touched and freed


def main(argv: list[str]) -> None:
    """Perturb, and become the program; nothing returns."""
    name, program, *arguments = argv
    own = f"{os.environ.get('HYPERBOX_SEED', '0')}/{name}"
    reseed_crng(own.encode())
    noise = mmap.mmap(-1, (1 + number(own, "pages", _MAX_NOISE_PAGES)) * mmap.PAGESIZE)
    for offset in range(0, len(noise), mmap.PAGESIZE):
        noise[offset] = 1
    noise.close()
    time.sleep(number(own, "delay", _MAX_DELAY_NS) / 1e9)
    padding = {"HYPERBOX_PADDING": "x" * number(own, "padding", _MAX_PADDING)}
    os.execvpe(program, [program, *arguments], os.environ | padding)  # noqa: S606 - no shell wanted


def number(own: str, what: str, below: int) -> int:
    """Return a number from 0 to below `below`; equal names, equal numbers."""
    return zlib.crc32(f"{what}/{own}".encode()) % below


if __name__ == "__main__":
    main(sys.argv[1:])
