"""Looks at many samples at once, held against their definition one at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.harness.statistics.design import (
    ALPHA,
    LOOKS,
    ONE_LIMIT,
    SIGN_LIMIT,
    SIGN_TWO_LIMITS,
    TWO_LIMITS,
    Kind,
    Target,
)
from hyperbox.harness.statistics.location import critical_value, locate
from hyperbox.harness.statistics.sequential import (
    alpha_at,
    first_decisions,
    p_met,
    p_missed,
    spread_of,
    through_all_looks,
)

# Quarters are exact, so mirror images and shifts are; few of them, so that ties abound.
quarters = st.integers(-12, 12).map(lambda whole: whole / 4)


def rows(length: int) -> st.SearchStrategy[list[list[float]]]:
    row = st.lists(quarters, min_size=length, max_size=length)
    return st.lists(row, min_size=1, max_size=5)


matrices = st.sampled_from((3, 8, 11, 12, 20, 32)).flatmap(rows)


@st.composite
def targets(draw: st.DrawFn) -> Target:
    high = draw(quarters)
    low = draw(st.none() | quarters.filter(lambda limit: limit <= high))
    return Target(
        low,
        high,
        limit_counts=draw(st.booleans()),
        kind=draw(st.sampled_from(Kind)),
        alphas=draw(st.sampled_from((ONE_LIMIT, SIGN_LIMIT, TWO_LIMITS, SIGN_TWO_LIMITS))),
        resolution=draw(st.none() | st.sampled_from((0.0, 0.3))),
    )


def one_at_a_time(values: Sequence[float], target: Target) -> tuple[int, int]:
    """The definition: the interval of each look against the limits."""
    used = len(values)
    for look, alpha in zip(LOOKS, target.alphas, strict=True):
        if look > len(values):
            break
        used, seen = look, values[:look]
        side = 1 * (p_met(seen, target) <= alpha) - 1 * (p_missed(seen, target) <= alpha)
        if side and not refused(seen, target, side):
            return side, used
    return 0, used


def refused(seen: Sequence[float], target: Target, side: int) -> bool:
    if target.resolution is None:
        return False
    needed = max(float(spread_of(np.array(seen))), target.resolution)
    estimate = locate(seen, kind=target.kind).estimate
    limits = {1: target.high, -1: target.low}
    if side < 0:  # the limit that is crossed
        crossed = 1 if target.high is not None and estimate >= target.high else -1
        limits = {crossed: limits[crossed]}
    return any(abs(estimate - limit) < needed for limit in limits.values() if limit is not None)


@settings(deadline=None, max_examples=50)
@given(matrices, targets())
def test_many_at_once_are_the_same_as_one_at_a_time(
    matrix: list[list[float]], target: Target
) -> None:
    found = first_decisions(np.array(matrix), target)
    expected = [one_at_a_time(row, target) for row in matrix]
    assert list(zip(found.side.tolist(), found.n.tolist(), strict=True)) == expected


@settings(deadline=None, max_examples=50)
@given(matrices, targets())
def test_mirrored_values_mirror_the_decision(matrix: list[list[float]], target: Target) -> None:
    mirrored = Target(
        low=None if target.high is None else -target.high,
        high=None if target.low is None else -target.low,
        limit_counts=target.limit_counts,
        kind=target.kind,
        alphas=target.alphas,
        resolution=target.resolution,
    )
    here = first_decisions(np.array(matrix), target)
    there = first_decisions(-np.array(matrix), mirrored)
    assert here.side.tolist() == there.side.tolist()
    assert here.n.tolist() == there.n.tolist()


@settings(deadline=None, max_examples=50)
@given(matrices, targets())
def test_order_within_a_look_does_not_matter(matrix: list[list[float]], target: Target) -> None:
    values = np.array(matrix)
    turned = values.copy()
    turned[:, :8] = turned[:, :8][:, ::-1]
    if values.shape[1] >= 8:
        here, there = first_decisions(values, target), first_decisions(turned, target)
        assert here.side.tolist() == there.side.tolist()


@settings(deadline=None, max_examples=50)
@given(matrices, targets())
def test_the_spread_of_starts_only_ever_withholds_a_look(
    matrix: list[list[float]], target: Target
) -> None:
    """At one look the exact lane claims what other lanes claim, or nothing."""
    bold = Target(target.low, target.high, target.limit_counts, target.kind, target.alphas)
    first = np.array(matrix)[:, :8]
    careful, daring = first_decisions(first, target).side, first_decisions(first, bold).side
    assert all(c in (0, d) for c, d in zip(careful, daring, strict=True))


@given(matrices, targets())
def test_p_values_over_all_looks_say_whether_a_look_decides(
    matrix: list[list[float]], target: Target
) -> None:
    bold = Target(target.low, target.high, target.limit_counts, target.kind, target.alphas)
    for row in matrix:
        met, missed = through_all_looks(row, bold)
        side = int(first_decisions(np.array([row]), bold).side[0])
        assert (min(met, missed) <= ALPHA * (1 + 1e-12)) == (side != 0)


@given(st.lists(quarters, min_size=8, max_size=32), targets())
def test_the_interval_says_what_the_p_values_say(values: list[float], target: Target) -> None:
    alpha = alpha_at(len(values), target)
    location = locate(values, alpha, target.kind)
    if critical_value(len(values), alpha, target.kind) is None:
        return
    above = target.low is None or (
        location.low >= target.low if target.limit_counts else location.low > target.low
    )
    below = target.high is None or (
        location.high <= target.high if target.limit_counts else location.high < target.high
    )
    assert (p_met(values, target) <= alpha) == (above and below)
    assert location.low <= location.estimate <= location.high


def test_blocks_of_any_shape_are_told_by_signs_and_not_by_ranks() -> None:
    """A third of the blocks lies far up: signed ranks call the median missed."""
    rng = np.random.default_rng(4)
    values = rng.normal(0, 0.1, (4000, 32)) + 3.0 * (rng.random((4000, 32)) < 0.3)
    values -= np.median(rng.normal(0, 0.1, 100_000) + 3.0 * (rng.random(100_000) < 0.3))
    met = {
        kind: first_decisions(values, Target(0.0, None, kind=kind, alphas=SIGN_LIMIT)).side == 1
        for kind in Kind
    }
    assert met[Kind.SIGNED_RANK].mean() > 3 * ALPHA
    assert met[Kind.SIGN].mean() < ALPHA


@pytest.mark.parametrize("alphas", [ONE_LIMIT, SIGN_LIMIT])
def test_looks_share_the_budget(alphas: tuple[float, ...]) -> None:
    assert sum(alphas) == pytest.approx(ALPHA)


@pytest.mark.parametrize("alphas", [TWO_LIMITS, SIGN_TWO_LIMITS])
def test_two_limits_share_the_budget_and_still_decide_at_the_first_look(
    alphas: tuple[float, ...],
) -> None:
    assert 2 * sum(alphas) == pytest.approx(ALPHA)
    target = Target(low=-1.0, high=1.0, alphas=alphas)
    found = first_decisions(np.array([[2.0] * 8, [0.0] * 8, [-2.0] * 8]), target)
    assert found.side.tolist() == [-1, 1, -1]


def test_alpha_at_each_look() -> None:
    target = Target(low=0.0, high=None, alphas=SIGN_LIMIT)
    assert [alpha_at(n, target) for n in (1, 8, 11, 12, 20, 40)] == [
        SIGN_LIMIT[look] for look in (0, 0, 0, 1, 2, 3)
    ]


def test_chunks_do_not_show() -> None:
    values = np.random.default_rng(1).standard_normal((5000, 12)) + 0.7
    target = Target(low=0.0, high=None)
    whole = first_decisions(values, target)
    parts = [first_decisions(part, target) for part in np.array_split(values, 7)]
    assert whole.side.tolist() == [side for part in parts for side in part.side.tolist()]
