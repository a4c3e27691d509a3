"""Ten-second averages of pressure from its `total`, each with a bound of its error. Pure.

Two kinds, because they answer different questions:

`boxcar`
    the stalled share of the last 10 s; what a human means. The total at the window's
    start is interpolated between two samples. Stall grows by between 0 and 1 second a
    second, which bounds what interpolation can miss: nothing when a sample lies on the
    edge, as with the default interval of 5 s, and never more than a quarter of the sample
    interval (12.5 points at 5 s, in the worst case of a stall that just touches the edge).

`replica`
    what the kernel prints as avg10: an exponential average stepped every 2 s with factor
    exp(-1/5) (kernel/sched/psi.c). When the steps happen is not visible from outside, nor
    where within a sample interval the stall lay; the bound covers every possibility and so
    is wide. The kernel cuts each step's percentage to whole points, downwards.

Times are nanoseconds of CLOCK_MONOTONIC, totals microseconds, averages percent.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["WINDOW_NS", "Average", "Point", "boxcar", "replica"]

WINDOW_NS = 10_000_000_000
"""Ten seconds."""

_STEP_NS = 2_000_000_000  # PSI_FREQ = 2 * HZ + 1 jiffy
_DECAY = 1677 / 2048  # EXP_10s / FIXED_1: 1 / exp(2 s / 10 s) in the kernel's fixed point
_WEIGHT = 1 - _DECAY
_TRUNCATION = 1.0  # points: the kernel cuts a step's percentage to a whole number
_LATE_STEP = 0.5  # points: steps come up to some milliseconds late, tens when CPUs are busy


@dataclass(frozen=True)
class Point:
    """A reading of one total: when (ns, monotonic) and how much stall since boot (us).

    The reading happened between `time_ns` and `late_ns` after it.
    """

    time_ns: int
    total_us: int
    late_ns: int = 0


@dataclass(frozen=True)
class Average:
    """An average in percent; the truth lies within `error` points of `percent`.

    `span_s` is how much time it covers: less than 10 s while history is shorter.
    """

    percent: float
    error: float
    span_s: float


def boxcar(points: Sequence[Point], window_ns: int = WINDOW_NS) -> Average | None:
    """Return the share of stall in the last `window_ns` before the last point.

    With shorter history the average covers what there is; None with fewer than two
    points. Points are in order of time.
    """
    if len(points) < 2 or points[-1].time_ns <= points[0].time_ns:
        return None
    last = points[-1]
    edge_ns = max(last.time_ns - window_ns, points[0].time_ns)
    older = bisect.bisect_right(points, edge_ns, key=_time_ns) - 1
    before, after = points[older], points[min(older + 1, len(points) - 1)]
    start_us, error_us = _interpolated(before, after, edge_ns)
    error_us += (last.late_ns + max(before.late_ns, after.late_ns)) / 1e3
    span_ns = last.time_ns - edge_ns
    scale = 100_000 / span_ns  # microseconds per nanosecond, in percent
    return Average((last.total_us - start_us) * scale, error_us * scale, span_ns / 1e9)


def replica(points: Sequence[Point], first_avg10: float) -> Average | None:
    """Return what the kernel's avg10 should be at the last point.

    Parameters
    ----------
    first_avg10
        The kernel's own value at the first point, from which the replica goes on.
    """
    if len(points) < 2:
        return None
    value = first_avg10
    for before, after in itertools.pairwise(points):
        elapsed_ns = after.time_ns - before.time_ns
        if elapsed_ns <= 0:
            continue
        share = min((after.total_us - before.total_us) * 1e3 / elapsed_ns, 1.0) * 100
        kept = _DECAY ** (elapsed_ns / _STEP_NS)
        value = value * kept + share * (1 - kept)
    high = _highest(points, first_avg10, stall=True)
    low = 100 - _highest(points, 100 - first_avg10, stall=False)
    error = max(high - value, value - low + _TRUNCATION, 0.0) + _LATE_STEP
    return Average(value, error, (points[-1].time_ns - points[0].time_ns) / 1e9)


def _time_ns(point: Point) -> int:
    return point.time_ns


def _interpolated(before: Point, after: Point, time_ns: int) -> tuple[float, float]:
    """Return the total at a time between two points, and how wrong it can be (both us).

    Stall grows by at most one second a second, so the total at the edge lies between
    ``max(0, D - rest)`` and ``min(D, passed)`` above the earlier one.
    """
    length_us = (after.time_ns - before.time_ns) / 1e3
    grown_us = float(after.total_us - before.total_us)
    if length_us <= 0 or time_ns <= before.time_ns:
        return float(before.total_us), 0.0
    passed_us = (time_ns - before.time_ns) / 1e3
    guess = grown_us * passed_us / length_us
    least = max(0.0, grown_us - (length_us - passed_us))
    most = min(grown_us, passed_us)
    return before.total_us + guess, max(guess - least, most - guess, 0.0)


def _highest(points: Sequence[Point], first: float, *, stall: bool) -> float:
    """Return the largest value that the kernel can print, whenever its steps happened.

    The weight of a moment depends on how many steps ended after it; the envelope over
    all phases of the 2 s grid is a staircase. Within a sample interval the stall is put
    where it weighs most: at its end. `stall` False asks the same of the time without
    stall, which gives the lower bound.
    """
    end_ns = points[-1].time_ns
    seconds = _STEP_NS / 1e9
    steps = (end_ns - points[0].time_ns) // _STEP_NS
    # The first point's own step may hold up to 2 s of unknown past.
    total = (first + 1.0) * _DECAY**steps + 100 * _WEIGHT * _DECAY ** max(steps - 1, 0)
    for before, after in itertools.pairwise(points):
        length_s = (after.time_ns - before.time_ns) / 1e9
        stalled_s = min((after.total_us - before.total_us) / 1e6, length_s)
        late_s = (before.late_ns + after.late_ns) / 1e9  # may belong to the neighbour
        amount_s = min((stalled_s if stall else length_s - stalled_s) + late_s, length_s)
        age_s = (end_ns - after.time_ns) / 1e9
        total += 100 * _WEIGHT / seconds * _envelope(age_s, age_s + amount_s)
    return min(total, 100.0)


def _envelope(from_s: float, to_s: float) -> float:
    """Integrate the largest weight (in steps' decay) over ages `from_s` ... `to_s`."""
    step = _STEP_NS / 1e9
    result, age = 0.0, from_s
    while age < to_s - 1e-12:
        number = math.floor(age / step + 1e-12)
        stop = min((number + 1) * step, to_s)
        result += (stop - age) * _DECAY ** max(number - 1, 0)
        age = stop
    return result
