"""The signed-rank machinery against scipy, brute force, published tables and its own promises."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from hyperbox.harness.statistics.design import ALPHA, LOOK_ALPHA, LOOKS, next_look
from hyperbox.harness.statistics.location import (
    critical_value,
    locate,
    p_above,
    p_below,
    signed_rank_tail,
    walsh_averages,
)

# Whole numbers keep shifts and mirror images exact.
whole = st.integers(-1000, 1000).map(float)
samples = st.lists(whole, min_size=1, max_size=20)
small_samples = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=10)

# Critical values of T, e.g. McCornack 1965 (JASA 60, 864-871), one-sided alpha.
PUBLISHED = {
    0.025: {6: 0, 7: 2, 8: 3, 9: 5, 10: 8, 11: 10, 12: 13, 13: 17, 14: 21, 15: 25, 20: 52, 25: 89},
    0.01: {7: 0, 8: 1, 9: 3, 10: 5, 11: 7, 12: 9, 13: 12, 14: 15, 15: 19, 20: 43, 25: 76},
    0.005: {8: 0, 9: 1, 10: 3, 11: 5, 12: 7, 13: 9, 14: 12, 15: 15, 20: 37, 25: 68},
}


def sign_patterns(magnitudes: Sequence[float]) -> list[list[float]]:
    """All equally likely samples of a symmetric null with these magnitudes."""
    signs = itertools.product((-1, 1), repeat=len(magnitudes))
    return [[s * m for s, m in zip(row, magnitudes, strict=True)] for row in signs]


@pytest.mark.parametrize("alpha", PUBLISHED)
def test_critical_values_match_published_tables(alpha: float) -> None:
    assert {n: critical_value(n, alpha) for n in PUBLISHED[alpha]} == PUBLISHED[alpha]


def test_too_few_values_have_no_critical_value() -> None:
    assert critical_value(5, 0.025) is None
    assert critical_value(7, LOOK_ALPHA) is None
    assert critical_value(8, LOOK_ALPHA) == 0


@pytest.mark.parametrize("n", range(1, 11))
def test_null_distribution_matches_brute_force(n: int) -> None:
    sums = np.array([sum(r) for r in itertools.product(*((0, k) for k in range(1, n + 1)))])
    for statistic in range(-1, n * (n + 1) // 2 + 2):
        assert signed_rank_tail(statistic, n) == np.count_nonzero(sums <= statistic) / 2**n


@given(st.lists(whole, min_size=2, max_size=20, unique_by=abs).filter(lambda v: 0.0 not in v))
def test_p_values_match_scipy(values: list[float]) -> None:
    less = wilcoxon(values, alternative="less", method="exact").pvalue
    greater = wilcoxon(values, alternative="greater", method="exact").pvalue
    assert p_below(values, 0.0) == pytest.approx(less)
    assert p_above(values, 0.0) == pytest.approx(greater)


@given(samples)
def test_walsh_averages_match_their_definition(values: list[float]) -> None:
    expected = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2))
    assert walsh_averages(values).tolist() == expected


@given(samples, whole)
def test_location_moves_with_the_values(values: list[float], shift: float) -> None:
    here, there = locate(values), locate([value + shift for value in values])
    assert there.estimate == here.estimate + shift
    assert (there.low, there.high) == (here.low + shift, here.high + shift)


@given(samples)
def test_location_is_mirrored_with_the_values(values: list[float]) -> None:
    here, there = locate(values), locate([-value for value in values])
    assert (there.estimate, there.low, there.high) == (-here.estimate, -here.high, -here.low)


@given(samples)
def test_interval_is_ordered_and_within_the_values(values: list[float]) -> None:
    location = locate(values)
    assert min(values) <= location.low <= location.estimate <= location.high <= max(values)
    assert 0 <= location.level <= 1


@given(samples, st.data())
def test_raising_a_value_never_lowers_the_location(
    values: list[float], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(values) - 1))
    raised = [value + 7 * (i == index) for i, value in enumerate(values)]
    here, there = locate(values), locate(raised)
    assert there.estimate >= here.estimate
    assert there.low >= here.low
    assert there.high >= here.high
    assert p_above(raised, 0) <= p_above(values, 0)


@given(samples, whole, st.booleans())
def test_test_and_interval_agree(values: list[float], limit: float, limit_counts: bool) -> None:
    if critical_value(len(values), LOOK_ALPHA) is None:
        assert p_below(values, limit, limit_counts=limit_counts) > LOOK_ALPHA
        return
    location = locate(values)
    below = location.high <= limit if limit_counts else location.high < limit
    above = location.low >= limit if limit_counts else location.low > limit
    assert (p_below(values, limit, limit_counts=limit_counts) <= LOOK_ALPHA) == below
    assert (p_above(values, limit, limit_counts=limit_counts) <= LOOK_ALPHA) == above


@settings(max_examples=30, deadline=None)
@given(small_samples, st.sampled_from((0.3, 0.1, 0.025, LOOK_ALPHA)))
def test_false_alarms_stay_below_alpha_even_with_ties_and_zeros(
    values: list[float], alpha: float
) -> None:
    patterns = sign_patterns(values)
    wrong = sum(p_below(pattern, 0.0, limit_counts=False) <= alpha for pattern in patterns)
    assert wrong / len(patterns) <= alpha


@settings(max_examples=30, deadline=None)
@given(small_samples, st.sampled_from((0.3, 0.1, LOOK_ALPHA)))
def test_interval_covers_at_its_level_even_with_ties(values: list[float], alpha: float) -> None:
    located = [locate(pattern, alpha) for pattern in sign_patterns(values)]
    covered = sum(location.low <= 0 <= location.high for location in located)
    assert covered / len(located) >= located[0].level - 1e-12


@settings(max_examples=3, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=12, max_size=12))
def test_two_looks_together_keep_their_share_of_alpha(magnitudes: list[int]) -> None:
    def decided_wrongly(pattern: list[float]) -> bool:
        return any(
            p_below(pattern[:look], 0.0, limit_counts=False) <= LOOK_ALPHA for look in LOOKS[:2]
        )

    patterns = sign_patterns([float(m) for m in magnitudes])
    assert sum(map(decided_wrongly, patterns)) / len(patterns) <= 2 * LOOK_ALPHA


def test_identical_values_decide_at_the_first_look() -> None:
    values = [-0.83] * 8
    location = locate(values)
    assert (location.estimate, location.low, location.high) == (-0.83, -0.83, -0.83)
    assert location.level == pytest.approx(1 - 2 / 256)
    assert p_below(values, -0.05) == 1 / 256 <= LOOK_ALPHA
    assert p_above(values, -0.05) == 1.0


def test_values_at_the_limit_count_for_or_against_as_asked() -> None:
    assert p_below([5.0] * 8, 5.0) == 1 / 256
    assert p_below([5.0] * 8, 5.0, limit_counts=False) == 1.0


def test_level_of_each_look() -> None:
    for look in LOOKS:
        level = locate([float(v) for v in range(look)]).level
        assert 1 - 2 * LOOK_ALPHA <= level < 1
    assert locate([1.0]).level == 0.0


def test_huge_values_do_not_overflow() -> None:
    assert locate([1.7e308] * 8).estimate == 1.7e308


def test_looks_are_planned() -> None:
    assert [next_look(n) for n in (0, 7, 8, 12, 31, 32, 40)] == [8, 8, 12, 20, 32, None, None]
    assert len(LOOKS) * LOOK_ALPHA == pytest.approx(ALPHA)


@pytest.mark.parametrize("values", [[], [float("nan")], [1.0, float("inf")]])
def test_unusable_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        locate(values)
