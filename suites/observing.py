"""What happened while a load ran: counters before and after, and the highest 10 s of pressure."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.linux.block_stat import block_stat
from hyperbox.linux.pressure import PressureFile, Resource, cgroup_files
from hyperbox.linux.swap import swap_areas
from hyperbox.linux.vmstat import vmstat
from suites.squeeze import MEBIBYTE

__all__ = ["COUNTERS", "Counters", "Observation", "highest_average", "observed"]

COUNTERS = ("pswpin", "pswpout", "workingset_refault_anon", "pgmajfault")
_PAGE = 4096
_INTERVAL_S = 0.25
_WINDOW_US = 10_000_000


@dataclass(frozen=True)
class Counters:
    """Every counter at one moment: stall in microseconds, pages."""

    memory_some_us: int
    memory_full_us: int
    io_some_us: int
    disk_pages_written: int
    events: dict[str, int]


@dataclass
class Observation:
    """What was seen; `before` and `after` are there when the block has ended.

    `moments` are (time, memory some, io some), all in microseconds.
    """

    before: Counters
    after: Counters | None = None
    moments: list[tuple[int, int, int]] = field(default_factory=list)
    disk_swap: list[int] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        """Return what is the same for every load, by the names of the metrics.

        A ratio needs positive numbers: no stall and no page at all are counted as one.
        """
        if self.after is None:
            raise WorkloadError("the load has not ended")
        before, after = self.before, self.after
        grown = {name: after.events[name] - before.events[name] for name in COUNTERS}
        memory = after.memory_some_us - before.memory_some_us
        storage = after.io_some_us - before.io_some_us
        return {
            "memory_some_us": max(memory, 1),
            "memory_full_us": after.memory_full_us - before.memory_full_us,
            "io_some_us": storage,
            "stall_us": max(memory, storage, 1),
            "memory_some_10s": highest_average([(when, some) for when, some, _ in self.moments]),
            "io_some_10s": highest_average([(when, some) for when, _, some in self.moments]),
            "disk_swap_out": max(after.disk_pages_written - before.disk_pages_written, 1),
            "disk_swap_mean": statistics.fmean(self.disk_swap) / MEBIBYTE,
            "swap_in": grown["pswpin"],
            "swap_out": grown["pswpout"],
            "refaults": grown["workingset_refault_anon"],
            "major_faults": grown["pgmajfault"],
        }


def highest_average(moments: Sequence[tuple[int, int]], window_us: int = _WINDOW_US) -> float:
    """Return the highest percentage of stall in any window between readings, at least so long.

    `moments` are (time, total) in microseconds, rising. A recording shorter than the window
    counts as a whole. ValueError if it has fewer than two readings.
    """
    if len(moments) < 2:
        raise ValueError("an average needs two readings")
    highest, first = 0.0, 0
    for when, total in moments:
        while first + 1 < len(moments) and when - moments[first + 1][0] >= window_us:
            first += 1
        span_us = when - moments[first][0]
        if span_us >= window_us:
            highest = max(highest, 100 * (total - moments[first][1]) / span_us)
    span_us = moments[-1][0] - moments[0][0]
    if span_us < window_us:
        highest = 100 * (moments[-1][1] - moments[0][1]) / span_us
    return min(highest, 100.0)


@contextlib.contextmanager
def observed(group: Path, disk: Path) -> Iterator[Observation]:
    """Observe a cgroup's pressure and a swap disk while the block runs."""
    with contextlib.ExitStack() as stack:
        files = {file.resource: stack.enter_context(file) for file in cgroup_files(group)}
        found = Observation(_counters(files, disk))
        ended = threading.Event()

        def collect() -> None:
            while True:
                found.moments.append(_moment(files))
                found.disk_swap.append(
                    sum(area.used for area in swap_areas() if area.path == str(disk))
                )
                if ended.wait(_INTERVAL_S):
                    return

        thread = threading.Thread(target=collect, name="observed")
        thread.start()
        try:
            yield found
        finally:
            ended.set()
            thread.join()
        found.moments.append(_moment(files))
        found.after = _counters(files, disk)


def _moment(files: dict[Resource, PressureFile]) -> tuple[int, int, int]:
    now_us = time.monotonic_ns() // 1000
    memory, storage = files[Resource.MEMORY].read().some, files[Resource.IO].read().some
    if memory is None or storage is None:
        raise WorkloadError("a pressure file lacks its some line")
    return now_us, memory.total_us, storage.total_us


def _counters(files: dict[Resource, PressureFile], disk: Path) -> Counters:
    memory, storage = files[Resource.MEMORY].read(), files[Resource.IO].read()
    if memory.some is None or memory.full is None or storage.some is None:
        raise WorkloadError("a pressure file lacks its some or full line")
    return Counters(
        memory.some.total_us,
        memory.full.total_us,
        storage.some.total_us,
        block_stat(disk).written_bytes // _PAGE,
        vmstat(COUNTERS),
    )
