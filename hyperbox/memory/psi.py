"""The pressure sampler: reads all totals at an interval and keeps the last samples.

Cheap by kept descriptors: one pread(2) and a small parse a file, 35 us of CPU a sample. The
monitor as a process of its own (`hyperbox.memory.monitor`), which wakes, samples, and prints
JSON, takes 0.4 ms a sample: 0.009 % of a CPU at the default 5 s, 0.4 % at 100 ms (measured over
60 s and 20 s on Linux 6.18, Python 3.11, two cores that were busy with other things).
"""

from __future__ import annotations

import bisect
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hyperbox.linux.pressure import Line, Pressure, PressureFile, Resource, StallKind, system_files
from hyperbox.memory.averages import WINDOW_NS, Average, Point, boxcar, replica

__all__ = ["HISTORY", "INTERVAL_S", "PressureHistory", "PressureSample", "Sampler", "watch"]

INTERVAL_S = 5.0
"""Default seconds between samples."""

HISTORY = 100
"""Default number of samples kept."""


@dataclass(frozen=True)
class PressureSample:
    """Everything read at one moment: `time_ns` of CLOCK_MONOTONIC, `unix_s` of the wall.

    The files were read within `late_ns` after that.
    """

    time_ns: int
    late_ns: int
    unix_s: float
    pressure: Mapping[Resource, Pressure]

    def line(self, resource: Resource, kind: StallKind) -> Line | None:
        """Return one line; None where this kernel does not print it."""
        found = self.pressure.get(resource)
        return found.line(kind) if found else None

    def lines(self) -> dict[tuple[Resource, StallKind], Line]:
        """Return every line that there is."""
        wanted = [(resource, kind) for resource in self.pressure for kind in StallKind]
        found = [(key, self.line(*key)) for key in wanted]
        return {key: line for key, line in found if line is not None}


@dataclass(frozen=True)
class PressureHistory:
    """What a sampler had kept at one moment, oldest first; never changes.

    Readers of other threads and tasks work on it without a lock while sampling goes on.
    """

    samples: tuple[PressureSample, ...] = ()
    history: int = HISTORY
    """How many samples the sampler keeps."""

    @property
    def last(self) -> PressureSample | None:
        """The newest sample; None before the first."""
        return self.samples[-1] if self.samples else None

    def boxcar(self, resource: Resource, kind: StallKind) -> Average | None:
        """Return the average over the last 10 s; None with fewer than two samples."""
        ring = self.samples
        if len(ring) < 2:
            return None
        edge_ns = ring[-1].time_ns - WINDOW_NS
        # Only the samples around the window's start and the last one count.
        older = max(bisect.bisect_right(ring, edge_ns, key=_time_ns) - 1, 0)
        return boxcar(_points((ring[older], ring[older + 1], ring[-1]), resource, kind))

    def replica(self, resource: Resource, kind: StallKind) -> Average | None:
        """Return what the kernel's avg10 should be; None with fewer than two samples.

        Works through the whole history: a check, not for every sample.
        """
        first = self.samples[0].line(resource, kind) if self.samples else None
        points = _points(self.samples, resource, kind)
        return replica(points, first.avg10) if first else None

    def shares(self, resource: Resource, kind: StallKind) -> tuple[float, ...]:
        """Return the percent of stall between every two samples, oldest first: for sparklines."""
        points = _points(self.samples, resource, kind)
        return tuple(
            min((after.total_us - before.total_us) * 1e5 / (after.time_ns - before.time_ns), 100.0)
            for before, after in itertools.pairwise(points)
            if after.time_ns > before.time_ns
        )

    def report(self) -> dict[str, object]:
        """Return the last sample as JSON values, under the names of the metrics endpoint.

        ``some_memory_us`` and its kin are stall in microseconds since boot; averages are
        percent, ``error`` is in points.

        Raises
        ------
        IndexError
            If nothing has been sampled.
        """
        last = self.samples[-1]
        result: dict[str, object] = {"time_unix_s": last.unix_s, "samples": len(self.samples)}
        averages: dict[str, object] = {}
        for (resource, kind), line in last.lines().items():
            name = f"{kind}_{resource}"
            result[f"{name}_us"] = line.total_us
            averages[name] = {
                "kernel": line.avg10,
                "boxcar": _as_json(self.boxcar(resource, kind)),
            }
        result["avg10"] = averages
        return result

    def rows(self) -> list[dict[str, object]]:
        """Return every sample kept as JSON values, oldest first: time and totals."""
        rows: list[dict[str, object]] = []
        for sample in self.samples:
            row: dict[str, object] = {"time_unix_s": sample.unix_s, "time_ns": sample.time_ns}
            for (resource, kind), line in sample.lines().items():
                row[f"{kind}_{resource}_us"] = line.total_us
            rows.append(row)
        return rows


class Sampler:
    """Keeps the last samples of a set of pressure files.

    One thread samples; any number may call `snapshot` (or what is built on it) meanwhile.

    Parameters
    ----------
    files
        What to read; the machine's own files by default. They are closed with the sampler.
    history
        How many samples are kept.

    Raises
    ------
    PressureMissing
        If this kernel gives no pressure.
    """

    def __init__(
        self, files: Sequence[PressureFile] | None = None, *, history: int = HISTORY
    ) -> None:
        if history < 1:
            raise ValueError(f"history of {history} samples")
        self._files = tuple(files) if files is not None else system_files()
        # Replaced whole, never changed: whoever holds the old one may go on reading it.
        self._snapshot = PressureHistory(history=history)

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def history(self) -> tuple[PressureSample, ...]:
        """The samples kept, oldest first."""
        return self._snapshot.samples

    def snapshot(self) -> PressureHistory:
        """Return everything kept now; takes no lock."""
        return self._snapshot

    def sample(self) -> PressureSample:
        """Read everything now, keep it and give it."""
        unix_s = time.time()
        began = time.monotonic_ns()
        pressure = {file.resource: file.read() for file in self._files}
        taken = PressureSample(began, time.monotonic_ns() - began, unix_s, pressure)
        kept = self._snapshot
        self._snapshot = PressureHistory((*kept.samples, taken)[-kept.history :], kept.history)
        return taken

    def boxcar(self, resource: Resource, kind: StallKind) -> Average | None:
        """Return the average over the last 10 s; None with fewer than two samples."""
        return self._snapshot.boxcar(resource, kind)

    def replica(self, resource: Resource, kind: StallKind) -> Average | None:
        """Return what the kernel's avg10 should be; None with fewer than two samples."""
        return self._snapshot.replica(resource, kind)

    def report(self) -> dict[str, object]:
        """Return the last sample as JSON values: `PressureHistory.report`."""
        return self._snapshot.report()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


def watch(
    sampler: Sampler,
    on_sample: Callable[[Sampler], None],
    *,
    interval_s: float = INTERVAL_S,
    count: int | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Sample every `interval_s` seconds until `count` samples are taken or `stop` is set.

    Samples lie on a grid from the start: a late one delays no other, and a missed one is
    left out. `on_sample` is called after each.
    """
    if interval_s <= 0:
        raise ValueError(f"interval of {interval_s} s")
    ended = stop or threading.Event()
    start = time.monotonic()
    taken = 0
    while not ended.is_set():
        sampler.sample()
        on_sample(sampler)
        taken += 1
        if count is not None and taken >= count:
            return
        passed = time.monotonic() - start
        ended.wait(interval_s - passed % interval_s)


def _points(
    samples: Iterable[PressureSample], resource: Resource, kind: StallKind
) -> tuple[Point, ...]:
    lines = [(sample, sample.line(resource, kind)) for sample in samples]
    return tuple(
        Point(sample.time_ns, line.total_us, sample.late_ns) for sample, line in lines if line
    )


def _time_ns(sample: PressureSample) -> int:
    return sample.time_ns


def _as_json(average: Average | None) -> dict[str, float] | None:
    if average is None:
        return None
    return {
        "percent": round(average.percent, 3),
        "error": round(average.error, 3),
        "span_s": round(average.span_s, 3),
    }
