"""The load on swap: pages are put out to a disk of constant latency and read back.

Every unit puts out as many pages as it reads back, by its own order (MADV_PAGEOUT), so equal
units do equal work on every kernel. Left to reclaim they do not: a walk round and round through
half again as much memory as a cgroup may hold reads every page back with 5.10's lists (equal
arms differed by 0.06 %), but with the generations of later kernels it depends on the start
which pages stay (7.3: 5477 to 6443 of 6400 read back, equal arms differed by 8 %).

One page at a time: which neighbours are read along depends on the order of slots on the disk,
so on the start: equal arms that read ahead differed by up to 1.6 % (5.10).
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
from collections.abc import Iterator, Mapping

from hyperbox.linux.knob import changed, sysctl
from hyperbox.linux.pressure import PressureFile, Resource
from hyperbox.linux.vmstat import vmstat
from suites.harness.load import BackgroundLoad, Ready
from suites.squeeze import MEBIBYTE, squeeze
from workloads.memory_walk import PAGE

__all__ = ["SWAP"]

_AREA_MIB = 2  # that is read back, and as much again that is put out
_PAGES = 32  # of one unit
_BLOCK = _PAGES * PAGE
_LATENCY_NS = 500_000  # of one request: an SSD across a network
_PAGEOUT = 21  # MADV_PAGEOUT of linux/mman.h, since 5.4; unknown to Python 3.11


@contextlib.contextmanager
def _swap() -> Iterator[Ready]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(changed(sysctl("vm.page-cluster"), 0))
        place = stack.enter_context(
            squeeze(limit_mib=8 * _AREA_MIB, disk_mib=8 * _AREA_MIB, latency_ns=_LATENCY_NS)
        )
        directory = place.group.directory
        memory = stack.enter_context(PressureFile(Resource.MEMORY, directory / "memory.pressure"))
        storage = stack.enter_context(PressureFile(Resource.IO, directory / "io.pressure"))
        place.group.add(os.getpid())
        clean, dirty = (stack.enter_context(contextlib.closing(_filled())) for _ in range(2))
        blocks = itertools.cycle(range(0, _AREA_MIB * MEBIBYTE, _BLOCK))

        def unit() -> None:
            block = next(blocks)
            for offset in range(block, block + _BLOCK, PAGE):
                dirty[offset] = 1
            dirty.madvise(_PAGEOUT, block, _BLOCK)  # is written while the others are read
            clean.madvise(_PAGEOUT, block, _BLOCK)  # is on the disk already: goes at once
            for offset in range(block, block + _BLOCK, PAGE):
                clean[offset]

        def counters() -> Mapping[str, float]:
            moved = vmstat(("pswpin", "pswpout"))
            return {
                "memory_some_us": _some_us(memory),
                "io_some_us": _some_us(storage),
                "swap_in": moved["pswpin"],
                "swap_out": moved["pswpout"],
            }

        yield Ready(unit, counters)


def _some_us(file: PressureFile) -> float:
    line = file.read().some
    return line.total_us if line is not None else 0


def _filled() -> mmap.mmap:
    """Return private memory, every page written and different: no two share a place in swap."""
    memory = mmap.mmap(-1, _AREA_MIB * MEBIBYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for offset in range(0, len(memory), PAGE):
        memory[offset : offset + 8] = (offset + 1).to_bytes(8, "little")
    return memory


# Warmed up by three rounds: pages are written in the first, clean in the second, read in the third.
SWAP = BackgroundLoad(200, _swap, warm_up=3 * _AREA_MIB * MEBIBYTE // _BLOCK)
