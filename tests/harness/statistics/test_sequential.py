"""Looks at many samples at once, compared with their definition one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from hyperbox.harness.statistics.design import (
    ALPHA,
    LOOKS,
    ONE_LIMIT,
    TWO_LIMITS,
    InferenceKind,
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
        kind=draw(st.sampled_from(InferenceKind)),
        alphas=draw(st.sampled_from((ONE_LIMIT, TWO_LIMITS))),
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
def test_the_intervals_say_what_the_p_values_say(values: list[float], target: Target) -> None:
    """A claim is made exactly if the interval of every test lies beyond the limits."""
    alpha, inside = alpha_at(len(values), target), []
    for kind in target.tests:
        if critical_value(len(values), alpha, kind) is None:
            return
        location = locate(values, alpha, kind)
        above = target.low is None or (
            location.low >= target.low if target.limit_counts else location.low > target.low
        )
        below = target.high is None or (
            location.high <= target.high if target.limit_counts else location.high < target.high
        )
        inside.append(above and below)
        assert location.low <= location.estimate <= location.high
    assert (p_met(values, target) <= alpha) == all(inside)


one_arm = st.sampled_from((0.2, 0.3, 0.4))


@settings(deadline=None, max_examples=10)
@given(
    one_arm, st.sampled_from((1.0, 3.0, 10.0)), st.integers(0, 99), st.sampled_from(InferenceKind)
)
def test_blocks_of_any_shape_keep_the_promise(
    share: float, reach: float, seed: int, kind: InferenceKind
) -> None:
    """A part of the blocks lies far up: signed ranks alone would call the median missed."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.1, (4000, 32)) + reach * (rng.random((4000, 32)) < share)
    values -= 0.1 * float(norm.ppf(0.5 / (1 - share)))  # the median, but for a tail too far
    side = first_decisions(values, Target(0.0, None, kind=kind)).side
    for wrong in (1, -1):
        assert binomtest(int((side == wrong).sum()), 4000, ALPHA, "greater").pvalue > 1e-4


def test_signed_ranks_alone_would_break_it() -> None:
    """Why signs must agree."""
    rng = np.random.default_rng(4)
    values = rng.normal(0, 0.1, (4000, 32)) + 3.0 * (rng.random((4000, 32)) < 0.3)
    values -= 0.1 * float(norm.ppf(0.5 / 0.7))
    alone = [
        p_met(row, Target(0.0, None), (InferenceKind.SIGNED_RANK,)) <= 0.0062
        for row in values[:400]
    ]
    assert np.mean(alone) > 2 * ALPHA


@settings(deadline=None)
@given(matrices, targets(), st.integers(-3, 3))
def test_a_power_of_two_as_unit_changes_nothing(
    matrix: list[list[float]], target: Target, exponent: int
) -> None:
    unit = 2.0**exponent
    scaled = replace(
        target,
        low=None if target.low is None else target.low * unit,
        high=None if target.high is None else target.high * unit,
        resolution=None if target.resolution is None else target.resolution * unit,
    )
    here = first_decisions(np.array(matrix), target)
    there = first_decisions(np.array(matrix) * unit, scaled)
    assert (here.side.tolist(), here.n.tolist()) == (there.side.tolist(), there.n.tolist())


@settings(deadline=None)
@given(st.lists(quarters, min_size=32, max_size=32), targets(), st.integers(0, 32))
def test_a_decision_stands_whatever_comes_after_it(
    values: list[float], target: Target, more: int
) -> None:
    whole = first_decisions(np.array([values]), target)
    if whole.side[0]:
        n = int(whole.n[0])
        part = first_decisions(np.array([values[: min(32, n + more)]]), target)
        assert (part.side[0], part.n[0]) == (whole.side[0], n)


def test_looks_share_the_budget() -> None:
    assert sum(ONE_LIMIT) == pytest.approx(ALPHA)


def test_two_limits_share_the_budget_and_still_decide_at_the_first_look() -> None:
    assert 2 * sum(TWO_LIMITS) == pytest.approx(ALPHA)
    target = Target(low=-1.0, high=1.0, alphas=TWO_LIMITS)
    found = first_decisions(np.array([[2.0] * 8, [0.0] * 8, [-2.0] * 8]), target)
    assert found.side.tolist() == [-1, 1, -1]


def test_alpha_at_each_look() -> None:
    target = Target(low=0.0, high=None, alphas=ONE_LIMIT)
    assert [alpha_at(n, target) for n in (1, 8, 11, 12, 20, 40)] == [
        ONE_LIMIT[look] for look in (0, 0, 0, 1, 2, 3)
    ]


def test_chunks_do_not_show() -> None:
    values = np.random.default_rng(1).standard_normal((5000, 12)) + 0.7
    target = Target(low=0.0, high=None)
    whole = first_decisions(values, target)
    parts = [first_decisions(part, target) for part in np.array_split(values, 7)]
    assert whole.side.tolist() == [side for part in parts for side in part.side.tolist()]
