"""What the kernel's pressure files said, read and judged without the product's code.

Pure apart from `RawReader`.
"""

from __future__ import annotations

import bisect
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Moment", "RawReader", "ReferenceRecording", "total_is_right"]

_LINE = re.compile(rb"^(some|full) avg10=([0-9.]+) .*total=([0-9]+)$", re.MULTILINE)

Key = tuple[str, str]
"""Resource and kind, for example ``("memory", "some")``."""


@dataclass(frozen=True)
class Moment:
    """All lines at one moment: read between `began_ns` and `ended_ns` (monotonic)."""

    began_ns: int
    ended_ns: int
    totals_us: Mapping[Key, int]
    avg10: Mapping[Key, float]


class RawReader:
    """Opens, reads and closes the files anew each time."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths

    def read(self) -> Moment:
        """Read every file now."""
        began = time.monotonic_ns()
        texts = {name: path.read_bytes() for name, path in self._paths.items()}
        ended = time.monotonic_ns()
        totals: dict[Key, int] = {}
        averages: dict[Key, float] = {}
        for name, text in texts.items():
            for kind, avg10, total in _LINE.findall(text):
                totals[name, kind.decode()] = int(total)
                averages[name, kind.decode()] = float(avg10)
        return Moment(began, ended, totals, averages)


class ReferenceRecording:
    """Moments at a high rate, oldest first."""

    def __init__(self, moments: Sequence[Moment]) -> None:
        self._moments = moments
        self._began = [moment.began_ns for moment in moments]
        self._ended = [moment.ended_ns for moment in moments]

    def share_bounds(self, key: Key, from_ns: int, to_ns: int) -> tuple[float, float] | None:
        """Return between which percentages the stalled share of a span of time lies.

        A total never falls, so it lies between the readings around the span's ends. None
        if the recording does not reach around both.
        """
        start = self._around(key, from_ns)
        end = self._around(key, to_ns)
        if start is None or end is None:
            return None
        scale = 100_000 / (to_ns - from_ns)
        return (end[0] - start[1]) * scale, (end[1] - start[0]) * scale

    def _around(self, key: Key, time_ns: int) -> tuple[int, int] | None:
        """Return the last total read wholly before a time and the first wholly after it."""
        before = bisect.bisect_right(self._ended, time_ns) - 1
        after = bisect.bisect_left(self._began, time_ns)
        if before < 0 or after >= len(self._moments):
            return None
        return self._moments[before].totals_us[key], self._moments[after].totals_us[key]


def total_is_right(before: Moment, value_us: int, after: Moment, key: Key) -> bool:
    """Whether a total read between two moments can have been the kernel's."""
    return before.totals_us[key] <= value_us <= after.totals_us[key]
