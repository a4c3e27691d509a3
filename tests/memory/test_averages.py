"""Averages against stalls that are known to the microsecond."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.memory.averages import Point, boxcar, replica

SECOND = 1_000_000_000
TICK_MS = 10  # resolution of the planted stalls

Stalls = Sequence[bool]
"""Whether each tick of `TICK_MS` was stalled."""


def ticks_of(runs: Sequence[int], first: bool) -> list[bool]:
    """Alternate stall and calm in runs of ticks, over and over, for a minute."""
    length = 60_000 // TICK_MS
    ticks: list[bool] = []
    for run in itertools.cycle(runs):
        ticks += [first] * run
        first = not first
        if len(ticks) >= length:
            break
    return ticks[:length]


def stalls() -> st.SearchStrategy[list[bool]]:
    """Draw patterns of stall and calm, from milliseconds to the whole minute."""
    runs = st.lists(st.integers(1, 2000), min_size=1, max_size=12)
    return st.builds(ticks_of, runs, st.booleans())


def totals(ticks: Stalls) -> list[int]:
    """Return the total in us at each tick's start, and at the end."""
    sums = [0]
    for tick in ticks:
        sums.append(sums[-1] + tick * TICK_MS * 1000)
    return sums


def sampled(ticks: Stalls, times_ms: Sequence[int]) -> list[Point]:
    """Read the total at some times, multiples of `TICK_MS`."""
    sums = totals(ticks)
    return [Point(time_ms * 1_000_000, sums[time_ms // TICK_MS]) for time_ms in times_ms]


def kernel_avg10(ticks: Stalls, phase_ms: int, end_ms: int) -> float:
    """Step avg10 as kernel/sched/psi.c does, in its fixed point, every 2 s from a phase."""
    sums = totals(ticks)
    average, last = 0, 0
    for now in range(phase_ms or 2000, end_ms + 1, 2000):
        period_us = (now - last) * 1000
        share = (sums[now // TICK_MS] - sums[last // TICK_MS]) * 100 // period_us * 2048
        moved = average * 1677 + share * (2048 - 1677)
        average = (moved + (2047 if share >= average else 0)) // 2048
        last = now
    return average / 2048


@settings(deadline=None)
@given(stalls(), st.integers(1, 100).map(lambda step: step * 100))
def test_boxcar_is_within_its_stated_error(ticks: Stalls, interval_ms: int) -> None:
    points = sampled(ticks, range(0, 60_001, interval_ms))
    sums = totals(ticks)
    own = boxcar(points)
    assert own is not None
    end = points[-1].time_ns // 1_000_000
    start = end - round(own.span_s * 1000)
    true = (sums[end // TICK_MS] - sums[start // TICK_MS]) / 10 / (end - start)
    assert abs(own.percent - true) <= own.error + 1e-6
    assert own.span_s == pytest.approx(min(10.0, end / 1000))


@settings(deadline=None)
@given(stalls(), st.sampled_from([1000, 2000, 2500, 5000, 10_000]))
def test_boxcar_has_no_error_when_a_sample_lies_on_the_edge(
    ticks: Stalls, interval_ms: int
) -> None:
    own = boxcar(sampled(ticks, range(0, 60_001, interval_ms)))
    assert own is not None
    assert own.error == pytest.approx(0, abs=1e-9)


@settings(deadline=None)
@given(stalls(), st.integers(1, 60).map(lambda step: step * 100))
def test_boxcar_error_is_at_most_a_quarter_of_the_interval(ticks: Stalls, interval_ms: int) -> None:
    own = boxcar(sampled(ticks, range(0, 60_001, interval_ms)))
    assert own is not None
    assert own.error <= interval_ms / 4 / 10_000 * 100 + 1e-6


def test_late_reading_widens_the_error() -> None:
    exact = [Point(0, 0), Point(5 * SECOND, 0), Point(10 * SECOND, 5_000_000)]
    late = [*exact[:2], Point(10 * SECOND, 5_000_000, late_ns=100_000_000)]
    first, second = boxcar(exact), boxcar(late)
    assert first is not None
    assert second is not None
    assert second.error == pytest.approx(first.error + 1.0)


@settings(deadline=None)
@given(
    stalls(),
    st.integers(1, 50).map(lambda step: step * 100),
    st.integers(0, 199).map(lambda tick: tick * TICK_MS),
    st.integers(0, 20),
)
def test_kernels_average_is_within_the_replicas_stated_error(
    ticks: Stalls, interval_ms: int, phase_ms: int, skipped: int
) -> None:
    times = list(range(0, 60_001, interval_ms))
    times = times[min(skipped, len(times) - 1) :]
    points = sampled(ticks, times)
    own = replica(points, round(kernel_avg10(ticks, phase_ms, times[0]), 2))
    if len(points) < 2:
        assert own is None
        return
    assert own is not None
    kernel = kernel_avg10(ticks, phase_ms, times[-1])
    assert abs(own.percent - kernel) <= own.error


def test_replica_refuses_a_wrong_kernel() -> None:
    # Steady half stall: a kernel that says 90 is refuted, so the bound is worth something.
    ticks = [index % 2 == 0 for index in range(6000)]
    own = replica(sampled(ticks, range(0, 60_001, 2000)), 50.0)
    assert own is not None
    assert own.percent == pytest.approx(50, abs=0.5)
    assert own.error < 25


@pytest.mark.parametrize("count", [0, 1])
def test_no_average_of_fewer_than_two_points(count: int) -> None:
    points = [Point(index, index) for index in range(count)]
    assert boxcar(points) is None
    assert replica(points, 0.0) is None


def test_points_of_one_moment_give_no_average() -> None:
    assert boxcar([Point(5, 1), Point(5, 1)]) is None
