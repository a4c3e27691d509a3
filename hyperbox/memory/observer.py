"""Takes the tuner's readings from the kernel: pressure, swapping, refaults by cgroup."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from hyperbox.errors import HyperboxError
from hyperbox.linux.block_stat import block_stat
from hyperbox.linux.cgroup import Cgroup, cgroup_root
from hyperbox.linux.pressure import (
    PressureFile,
    Resource,
    StallKind,
    cgroup_files,
    parse_pressure,
    system_files,
)
from hyperbox.linux.swap import swap_areas
from hyperbox.linux.vmstat import vmstat
from hyperbox.memory.readings import GroupCounters, Reading

__all__ = ["Observer", "swap_names"]

_MOST_GROUPS = 64  # each costs three small reads
_PAGE = os.sysconf("SC_PAGE_SIZE")
_REFAULTS = ("workingset_refault", "workingset_refault_anon", "workingset_refault_file")


class Observer:
    """Reads everything that the policy judges from.

    Parameters
    ----------
    group
        A cgroup whose pressure is judged; by default the machine's is.
    also
        Cgroups whose refaults are watched beside the top ones.

    Raises
    ------
    PressureMissing
        If this kernel gives no pressure, with the reason.
    """

    def __init__(self, group: Path | None = None, also: Sequence[Path] = ()) -> None:
        files = cgroup_files(group) if group is not None else system_files()
        self._files = {file.resource: file for file in files}
        self._also = tuple(also)
        # Pages moved by zram are not disk swap: counted apart, interval by interval, because
        # a zram disk's own counters go away with it.
        self._moved = vmstat(("pswpin", "pswpout"))
        self._zram = _zram_pages()
        self._disk_pages = [0, 0]

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def reading(self) -> Reading:
        """Read everything now.

        Raises
        ------
        WorkloadError, PressureMissing
            If the cgroup is gone or pressure was switched off.
        """
        now_ns = time.monotonic_ns()
        ahead_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - now_ns
        memory = self._totals(self._files[Resource.MEMORY])
        storage = self._totals(self._files[Resource.IO])
        self._count_disk_swap()
        return Reading(
            time_ns=now_ns,
            memory_some_us=memory[0],
            memory_full_us=memory[1],
            io_some_us=storage[0],
            swap_ins=self._disk_pages[0],
            swap_outs=self._disk_pages[1],
            suspended_ns=ahead_ns,
            groups=self._groups(),
            swaps=swap_names(),
        )

    @staticmethod
    def _totals(file: PressureFile) -> tuple[int, int]:
        pressure = file.read()
        some, full = pressure.line(StallKind.SOME), pressure.line(StallKind.FULL)
        return (some.total_us if some else 0, full.total_us if full else 0)

    def _count_disk_swap(self) -> None:
        moved, zram = vmstat(("pswpin", "pswpout")), _zram_pages()
        for which, name in enumerate(("pswpin", "pswpout")):
            by_zram = sum(
                max(pages[which] - self._zram.get(disk, (0, 0))[which], 0)
                for disk, pages in zram.items()
            )
            self._disk_pages[which] += max(moved[name] - self._moved[name] - by_zram, 0)
        self._moved, self._zram = moved, zram

    def _groups(self) -> dict[str, GroupCounters]:
        found: dict[str, GroupCounters] = {}
        for directory in self._watched():
            with contextlib.suppress(HyperboxError, ValueError):  # gone, or without memory
                found[str(directory)] = _counters(Cgroup(directory))
        return found

    def _watched(self) -> list[Path]:
        with contextlib.suppress(HyperboxError, OSError):
            top = sorted(path for path in cgroup_root().iterdir() if path.is_dir())
            return list(dict.fromkeys((*self._also, *top)))[:_MOST_GROUPS]
        return list(self._also)


def swap_names() -> frozenset[str]:
    """Return the names of the swap areas in use."""
    return frozenset(area.path for area in swap_areas())


def _counters(group: Cgroup) -> GroupCounters:
    counters = group.counters("memory.stat")
    lines = [
        parse_pressure(group.read(f"{resource}.pressure")).some
        for resource in (Resource.MEMORY, Resource.IO)
    ]
    stall_us = max((line.total_us for line in lines if line), default=0)
    return GroupCounters(sum(counters.get(name, 0) for name in _REFAULTS), stall_us)


def _zram_pages() -> dict[str, tuple[int, int]]:
    """Return the pages read from and written to each zram disk that is swapped to."""
    found = {}
    for area in swap_areas():
        device = Path(area.path)
        if device.name.startswith("zram"):
            with contextlib.suppress(HyperboxError, ValueError):
                stat = block_stat(device)
                found[area.path] = (stat.read_bytes // _PAGE, stat.written_bytes // _PAGE)
    return found
