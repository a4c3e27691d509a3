"""The pressure sampler: reads all totals at an interval and keeps the last samples.

Cheap by kept descriptors: one pread(2) and a small parse a file, about 35 us a sample.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hyperbox.linux.pressure import Kind, Line, Pressure, PressureFile, Resource, system_files
from hyperbox.memory.averages import WINDOW_NS, Average, Point, boxcar, replica

__all__ = ["HISTORY", "INTERVAL_S", "Sample", "Sampler", "watch"]

INTERVAL_S = 5.0
"""Default seconds between samples."""

HISTORY = 100
"""Default number of samples kept."""


@dataclass(frozen=True)
class Sample:
    """Everything read at one moment: `time_ns` of CLOCK_MONOTONIC, `unix_s` of the wall.

    The files were read within `late_ns` after that.
    """

    time_ns: int
    late_ns: int
    unix_s: float
    pressure: Mapping[Resource, Pressure]

    def line(self, resource: Resource, kind: Kind) -> Line | None:
        """Give one line; None where this kernel does not print it."""
        found = self.pressure.get(resource)
        return found.line(kind) if found else None

    def lines(self) -> dict[tuple[Resource, Kind], Line]:
        """Give every line that there is."""
        wanted = [(resource, kind) for resource in self.pressure for kind in Kind]
        found = [(key, self.line(*key)) for key in wanted]
        return {key: line for key, line in found if line is not None}


class Sampler:
    """Keeps the last samples of a set of pressure files.

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
        self._ring: deque[Sample] = deque(maxlen=history)

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def history(self) -> tuple[Sample, ...]:
        """The samples kept, oldest first."""
        return tuple(self._ring)

    def sample(self) -> Sample:
        """Read everything now, keep it and give it."""
        unix_s = time.time()
        began = time.monotonic_ns()
        pressure = {file.resource: file.read() for file in self._files}
        taken = Sample(began, time.monotonic_ns() - began, unix_s, pressure)
        self._ring.append(taken)
        return taken

    def boxcar(self, resource: Resource, kind: Kind) -> Average | None:
        """Give the average over the last 10 s; None with fewer than two samples."""
        ring = self._ring
        if len(ring) < 2:
            return None
        edge_ns = ring[-1].time_ns - WINDOW_NS
        # Only the samples around the window's start and the last one count.
        older = max(bisect.bisect_right(ring, edge_ns, key=_time_ns) - 1, 0)
        return boxcar(self._points((ring[older], ring[older + 1], ring[-1]), resource, kind))

    def replica(self, resource: Resource, kind: Kind) -> Average | None:
        """Give what the kernel's avg10 should be; None with fewer than two samples.

        Works through the whole history: a check, not for every sample.
        """
        first = self._ring[0].line(resource, kind) if self._ring else None
        points = self._points(self._ring, resource, kind)
        return replica(points, first.avg10) if first else None

    def report(self) -> dict[str, object]:
        """Give the last sample as JSON values, under the names of the metrics endpoint.

        ``some_memory_us`` and its kin are stall in microseconds since boot; averages are
        percent, ``error`` is in points.

        Raises
        ------
        IndexError
            If nothing has been sampled.
        """
        last = self._ring[-1]
        result: dict[str, object] = {"time_unix_s": last.unix_s, "samples": len(self._ring)}
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

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    @staticmethod
    def _points(samples: Iterable[Sample], resource: Resource, kind: Kind) -> tuple[Point, ...]:
        lines = [(sample, sample.line(resource, kind)) for sample in samples]
        return tuple(
            Point(sample.time_ns, line.total_us, sample.late_ns) for sample, line in lines if line
        )


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


def _time_ns(sample: Sample) -> int:
    return sample.time_ns


def _as_json(average: Average | None) -> dict[str, float] | None:
    if average is None:
        return None
    return {
        "percent": round(average.percent, 3),
        "error": round(average.error, 3),
        "span_s": round(average.span_s, 3),
    }
