"""What two readings say about the time between them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.memory.readings import SECOND_NS, GroupCounters, Interval, Reading, between, joined

START = Reading(SECOND_NS, 100, 50, 200, 10, 20)


def later(seconds: float = 5.0, **changes: object) -> Reading:
    then = replace(START, time_ns=START.time_ns + int(seconds * SECOND_NS))
    return replace(then, **changes)  # type: ignore[arg-type]


def test_shares_and_rates_by_hand() -> None:
    found = between(
        START, later(memory_some_us=2_500_100, io_some_us=1_000_200, swap_ins=60, swap_outs=120)
    )
    assert found is not None
    assert (found.memory_some, found.memory_full, found.io_some) == (50, 0, 20)
    assert (found.swap_ins, found.swap_outs) == (10, 20)


def test_share_is_never_above_a_hundred() -> None:
    found = between(START, later(memory_some_us=6_000_100))
    assert found is not None
    assert found.memory_some == 100


@pytest.mark.parametrize(
    "after",
    [
        later(0.0),
        later(-1.0),
        later(memory_some_us=99),
        later(swap_ins=9),
        later(suspended_ns=2 * SECOND_NS),
        later(suspended_ns=-2 * SECOND_NS),
    ],
)
def test_readings_that_cannot_be_compared(after: Reading) -> None:
    assert between(START, after) is None


def test_refaults_are_counted_by_working_time() -> None:
    before = replace(START, groups={"/a": GroupCounters(0, 0), "/gone": GroupCounters(5)})
    groups = {"/a": GroupCounters(100, 2_500_000), "/new": GroupCounters(7)}
    found = between(before, later(groups=groups))
    assert found is not None
    assert found.refaults == {"/a": pytest.approx(100 / 2.5)}


def test_cgroup_that_never_works_has_no_endless_rate() -> None:
    before = replace(START, groups={"/a": GroupCounters(0, 0)})
    found = between(before, later(groups={"/a": GroupCounters(100, 5_000_000)}))
    assert found is not None
    assert found.refaults["/a"] == pytest.approx(100 / 0.25)


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 100), st.floats(0, 1000)), min_size=1))
def test_joined_is_the_weighted_mean(parts: list[tuple[int, float, float]]) -> None:
    at, intervals = 0, []
    for seconds, share, rate in parts:
        end = at + seconds * SECOND_NS
        intervals.append(Interval(at, end, share, 0, share / 2, rate, 0, {"/a": rate}))
        at = end
    whole = joined(intervals)
    length = sum(seconds for seconds, _, _ in parts)
    expected = sum(seconds * share for seconds, share, _ in parts) / length
    assert whole.memory_some == pytest.approx(expected)
    assert whole.io_some == pytest.approx(expected / 2)
    assert whole.refaults["/a"] == pytest.approx(whole.swap_ins)
    assert whole.seconds == length


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no interval"):
        joined([])


def test_score_takes_storage_only_while_pages_come_back() -> None:
    one = Interval(0, SECOND_NS, 10, 5, 90, 9.9, 0, {})
    assert one.score(10) == 10
    assert replace(one, swap_ins=10).score(10) == 90
    assert replace(one, swap_ins=10, memory_some=95).score(10) == 95
