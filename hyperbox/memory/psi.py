"""Sampling of pressure: a clock, a ring buffer of the last samples, two averages.

Two 10-second averages are offered. The kernel's own (`avg10`) is an exponential average
updated every 2 s: smooth, but up to 18 points behind a sudden change. The boxcar is the
stalled share of the last 10 s, computed from the `total` counters: it has no lag, and its
only error is the placement of its two ends, at most ``2 * jitter / 10 s`` of 100 points,
where the jitter is how late a sample was taken.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hyperbox.linux.pressure import Pressure, PressureFile

__all__ = ["DEFAULT_INTERVAL", "HISTORY", "WINDOW", "Sample", "Sampler", "boxcar"]

DEFAULT_INTERVAL = 5.0
"""Seconds between samples."""
HISTORY = 100
"""Samples kept in memory."""
WINDOW = 10.0
"""Length of the boxcar average in seconds."""


@dataclass(frozen=True)
class Sample:
    """All pressure files read at one moment.

    `monotonic_ns` is CLOCK_MONOTONIC just before the first read; `pressures` has one
    entry per file, under the name the sampler was given.
    """

    monotonic_ns: int
    pressures: Mapping[str, Pressure]

    def total(self, name: str, kind: str) -> int:
        """Give the stalled time in us of ``some`` or ``full``; 0 where there is no such line."""
        pressure = self.pressures[name]
        stall = pressure.some if kind == "some" else pressure.full
        return stall.total if stall is not None else 0


def boxcar(
    samples: tuple[Sample, ...], name: str, kind: str, window: float = WINDOW
) -> float | None:
    """Give the stalled share of the last `window` seconds in per cent.

    The window ends at the newest sample and begins at the newest one that is at least
    `window` seconds older (half an interval of lateness allowed for), so that it never
    shrinks below the window by more than the sampling jitter.

    Returns
    -------
    float or None
        None while the samples do not reach back far enough.
    """
    if len(samples) < 2:
        return None
    newest = samples[-1]
    interval = newest.monotonic_ns - samples[-2].monotonic_ns
    limit = newest.monotonic_ns - int(window * 1e9) + interval // 2
    begin = next((old for old in reversed(samples) if old.monotonic_ns <= limit), None)
    if begin is None:
        return None
    stalled_us = newest.total(name, kind) - begin.total(name, kind)
    return stalled_us * 1e5 / (newest.monotonic_ns - begin.monotonic_ns)


class Sampler:
    """Reads pressure files at a fixed rate.

    Parameters
    ----------
    files
        Open pressure files by name (``memory``, or what a cgroup is called).
    interval
        Seconds between samples.
    history
        Samples kept; the oldest falls out.
    clock, sleep
        CLOCK_MONOTONIC in ns and a sleep in seconds; tests put their own here.
    """

    def __init__(
        self,
        files: Mapping[str, PressureFile],
        *,
        interval: float = DEFAULT_INTERVAL,
        history: int = HISTORY,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not interval > 0:
            raise ValueError(f"interval must be above 0 s, not {interval}")
        self.interval = interval
        self._files = dict(files)
        self._samples: deque[Sample] = deque(maxlen=history)
        self._clock = clock
        self._sleep = sleep
        self._due_ns: int | None = None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples in memory, oldest first."""
        return tuple(self._samples)

    def sample(self) -> Sample:
        """Read every file now and remember it."""
        now = self._clock()
        taken = Sample(now, {name: file.read() for name, file in self._files.items()})
        self._samples.append(taken)
        return taken

    def wait(self) -> None:
        """Sleep until the next sample is due.

        Due times are multiples of the interval from the first call: no drift. Moments
        that were missed (suspended machine) are skipped, not made up for.
        """
        interval_ns = int(self.interval * 1e9)
        now = self._clock()
        if self._due_ns is None:
            self._due_ns = now
        self._due_ns += max(1, -(-(now - self._due_ns) // interval_ns)) * interval_ns
        self._sleep(max(0, self._due_ns - now) / 1e9)

    def average(self, name: str, kind: str = "some") -> float | None:
        """Give the boxcar average in per cent; None until 10 s of samples are there."""
        return boxcar(self.samples, name, kind)
