"""Tests of the measurement against scipy, all orders of few blocks, and planted shapes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, mannwhitneyu, norm

from hyperbox.harness.statistics.diagnostics import diagnostics, groups_of, warm_up_length


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-(10**6), 10**6).map(float), min_size=8, max_size=32, unique=True))
def test_tests_match_scipy(values: list[float]) -> None:
    details = diagnostics(np.array(values), [n % 2 == 0 for n in range(len(values))])
    assert details["drift"] == pytest.approx(kendalltau(values, range(len(values))).statistic)
    expected = mannwhitneyu(values[::2], values[1::2], method="asymptotic", use_continuity=True)
    assert details["p_order"] == pytest.approx(expected.pvalue, rel=1e-6)


def test_likeness_of_neighbours_has_the_moments_of_every_order() -> None:
    """All orders of 8 blocks: the mean is -1/8, and p is uniform enough where it matters."""
    orders = np.array(list(itertools.permutations(range(8))), dtype=float) - 3.5
    lags = (orders[:, 1:] * orders[:, :-1]).sum(axis=1) / 42
    assert lags.mean() == pytest.approx(-1 / 8)
    found = diagnostics(np.array([0.0, 2.0, 1.0, 4.0, 3.0, 6.0, 7.0, 5.0]), None)
    deviation = (found["lag1"] + 1 / 8) / norm.isf(found["p_lag1"])
    assert deviation == pytest.approx(lags.std())
    for p in (0.01, 0.05, 0.1):
        assert (lags > norm.isf(p) * lags.std() - 1 / 8).mean() == pytest.approx(p, rel=0.4)


@settings(deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=8, max_size=32))
def test_groups_hold_all_blocks_or_none_is_told(values: list[float]) -> None:
    groups = groups_of(np.array(values))
    assert not groups or sum(count for count, _ in groups) == len(values)
    assert [middle for _, middle in groups] == sorted(middle for _, middle in groups)


@pytest.mark.parametrize(
    ("values", "length"),
    [
        ([9.0, 5.0, *[1.0, 1.1, 0.9, 1.0] * 4], 2),
        ([1.0, 1.1, 0.9, 1.0] * 4, 0),
        ([1.0] * 8, 0),
        ([9.0] * 4 + [1.0] * 4, 4),
        ([5.0], 0),
        ([], 0),
    ],
)
def test_warm_up_of_a_pilot(values: list[float], length: int) -> None:
    assert warm_up_length(values) == length
