"""Memory pressure of a fixed amount of work, with disk swap alone and with zram ahead of it.

Both arms own the same memory: what zram may take (`_ZRAM_MIB`) is taken off the cgroup's
limit, and an arm whose zram took more is a failure, not a measurement.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.linux.block_stat import block_stat
from hyperbox.linux.knob import changed, sysctl
from hyperbox.linux.pressure import PressureFile, Resource, cgroup_files
from hyperbox.linux.swap import swap_areas, swapping
from hyperbox.linux.vmstat import vmstat
from hyperbox.linux.zram import zram_device, zram_memory
from suites.psi.program import Measured, run_program, seed
from suites.psi.squeeze import MEBIBYTE, Squeeze, Walker, squeeze, walker

_MEMORY_MIB = 48  # the cgroup's limit and zram together
_WALK_MIB = 64  # walked over: a third more than there is
_ZRAM_MIB = 12  # what zram may take: a quarter of the memory
_ZRAM_DISK_MIB = 22  # what it may hold: its share at the compression of two that pages allow
_ACCESSES = 10_000
_LATENCY_NS = 1_000_000  # one millisecond: network storage, or a busy SATA SSD
_PAGE = 4096
_ENOUGH_STALL_US = 50_000  # less in the stock arm would be noise around nothing
_ENOUGH_SWAPPED_PAGES = 500
_COUNTERS = ("pswpin", "pswpout", "workingset_refault_anon", "pgmajfault")


@dataclass(frozen=True)
class _Reading:
    """Every counter at one moment."""

    memory_some_us: int
    memory_full_us: int
    io_some_us: int
    disk_pages_written: int
    counters: dict[str, int]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one arm; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", required=True, choices=("stock", "zram_ahead"))
    arm = parser.parse_args(argv).arm
    return run_program(lambda: _measure(arm))


def _measure(arm: str) -> Measured:
    with contextlib.ExitStack() as stack:
        zram_mib = _ZRAM_MIB if arm == "zram_ahead" else 0
        place = stack.enter_context(
            squeeze(limit_mib=_MEMORY_MIB - zram_mib, disk_mib=_WALK_MIB, latency_ns=_LATENCY_NS)
        )
        zram: Path | None = None
        notes: dict[str, object] = {"limit_mib": _MEMORY_MIB - zram_mib}
        if zram_mib:
            zram, notes["algorithm"] = stack.enter_context(_zram_ahead())
        files = cgroup_files(place.group.directory)
        for file in files:
            stack.enter_context(file)
        options = ["--mib", str(_WALK_MIB), "--accesses", str(_ACCESSES), "--seed", str(seed())]
        walk = stack.enter_context(walker(place.group, options))
        walk.go()
        walk.expect("filled")
        return _work(arm, place, walk, files, zram, notes)


@contextlib.contextmanager
def _zram_ahead() -> Iterator[tuple[Path, str]]:
    """Swap to zram before the disk, with the settings that suit a fast swap.

    One page at a time, because there is no seek to save; swappiness 100, because a page
    from zram costs no more than one from the page cache.
    """
    with contextlib.ExitStack() as stack:
        device, algorithm = stack.enter_context(
            zram_device(size=_ZRAM_DISK_MIB * MEBIBYTE, algorithms=("lz4", "lzo-rle", "lzo"))
        )
        stack.enter_context(swapping(device, priority=100))
        stack.enter_context(changed(sysctl("vm.page-cluster"), 0))
        stack.enter_context(changed(sysctl("vm.swappiness"), 100))
        yield device, algorithm


def _work(
    arm: str,
    place: Squeeze,
    walk: Walker,
    files: Sequence[PressureFile],
    zram: Path | None,
    notes: dict[str, object],
) -> Measured:
    before = _read(files, place.disk)
    with _disk_swap_in_use(place.disk) as in_use:
        walk.go()
        result = walk.result()
    after = _read(files, place.disk)
    delta = {name: after.counters[name] - before.counters[name] for name in _COUNTERS}
    stall_us = after.memory_some_us - before.memory_some_us
    written = after.disk_pages_written - before.disk_pages_written
    if arm == "stock":
        check_load(stall_us, written)
    used = zram_memory(zram).used_max / MEBIBYTE if zram else 0.0
    if used > _ZRAM_MIB:
        raise WorkloadError(f"zram took {used:.1f} MiB, more than its share of {_ZRAM_MIB}")
    metrics: dict[str, float] = {
        # A ratio needs positive numbers: none at all is counted as one.
        "memory_some_us": max(stall_us, 1),
        "memory_full_us": after.memory_full_us - before.memory_full_us,
        "io_some_us": after.io_some_us - before.io_some_us,
        "elapsed_us": result["elapsed_ns"] / 1e3,
        "work_rate": result["accesses"] / (result["elapsed_ns"] / 1e9),
        "p99_latency_us": result["p99_ns"] / 1e3,
        "disk_swap_out": max(written, 1),
        "disk_swap_mean": statistics.fmean(in_use) / MEBIBYTE,
        "swap_in": delta["pswpin"],
        "swap_out": delta["pswpout"],
        "refaults": delta["workingset_refault_anon"],
        "major_faults": delta["pgmajfault"],
        "zram_used_max": used,
    }
    return Measured(
        metrics, notes | {"p50_us": result["p50_ns"] / 1e3, "swap_samples": len(in_use)}
    )


def check_load(stall_us: int, written: int) -> None:
    """Refuse a baseline without pressure: a reduction of nothing cannot be measured."""
    if stall_us < _ENOUGH_STALL_US:
        raise WorkloadError(f"the load stalled {stall_us} us, less than {_ENOUGH_STALL_US}")
    if written < _ENOUGH_SWAPPED_PAGES:
        raise WorkloadError(f"the load swapped {written} pages, less than {_ENOUGH_SWAPPED_PAGES}")


def _read(files: Sequence[PressureFile], disk: Path) -> _Reading:
    pressure = {file.resource: file.read() for file in files}
    memory, io = pressure[Resource.MEMORY], pressure[Resource.IO]
    if memory.some is None or memory.full is None or io.some is None:
        raise WorkloadError("a pressure file lacks its some or full line")
    return _Reading(
        memory.some.total_us,
        memory.full.total_us,
        io.some.total_us,
        block_stat(disk).written_bytes // _PAGE,
        vmstat(_COUNTERS),
    )


@contextlib.contextmanager
def _disk_swap_in_use(disk: Path, interval_s: float = 0.1) -> Iterator[list[int]]:
    """Collect the bytes in use on the disk while the block runs."""
    ended = threading.Event()
    samples: list[int] = []

    def collect() -> None:
        while not ended.is_set():
            samples.append(sum(area.used for area in swap_areas() if area.path == str(disk)))
            ended.wait(interval_s)

    thread = threading.Thread(target=collect, name="swap-in-use")
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
