"""How far two sets of blocks lie apart: against scipy, against all relabellings, against itself."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, wilcoxon

from hyperbox.harness.statistics.shifts import paired_shift, unpaired_shift

VALUES = st.floats(-1e6, 1e6, allow_nan=False)
SETS = st.lists(VALUES, min_size=1, max_size=9, unique=True)


@given(SETS, SETS)
def test_unpaired_p_is_scipys_where_nothing_ties(first: list[float], second: list[float]) -> None:
    if len({*first, *second}) < len(first) + len(second):
        return
    exact = mannwhitneyu(first, second, method="exact").pvalue
    assert unpaired_shift(first, second).p == pytest.approx(exact, abs=1e-12)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 2.5]), min_size=1, max_size=4), SETS)
def test_unpaired_p_holds_with_ties(first: list[float], second: list[float]) -> None:
    """Never smaller than the share of all relabellings with as extreme a statistic."""
    second = second[:4]
    pooled = [*first, *second]

    def statistic(one: tuple[float, ...], two: tuple[float, ...]) -> int:
        below = sum(b <= a for a in one for b in two)
        above = sum(b >= a for a in one for b in two)
        return min(below, above)

    seen = statistic(tuple(first), tuple(second))
    splits = list(itertools.combinations(range(len(pooled)), len(first)))
    extreme = 0
    for chosen in splits:
        one = tuple(pooled[i] for i in chosen)
        two = tuple(v for i, v in enumerate(pooled) if i not in chosen)
        extreme += statistic(one, two) <= seen
    assert unpaired_shift(first, second).p >= extreme / len(splits) - 1e-12


@given(SETS, SETS)
def test_interval_excludes_zero_only_if_p_says_so(first: list[float], second: list[float]) -> None:
    found = unpaired_shift(first, second)
    assert found.low <= found.estimate <= found.high
    if found.level >= 0.95:
        assert (found.p <= 0.05) == (not found.low <= 0 <= found.high)


@given(SETS, SETS, st.floats(-100, 100))
def test_shift_moves_with_the_values(first: list[float], second: list[float], by: float) -> None:
    before = unpaired_shift(first, second)
    after = unpaired_shift(first, [value + by for value in second])
    assert after.estimate == pytest.approx(before.estimate + by, abs=1e-6)
    mirrored = unpaired_shift(second, first)
    assert mirrored.estimate == pytest.approx(-before.estimate, abs=1e-9)
    assert mirrored.p == pytest.approx(before.p)


@given(st.lists(VALUES.filter(bool), min_size=1, max_size=12, unique_by=abs))
def test_paired_p_is_scipys_where_nothing_ties(differences: list[float]) -> None:
    halves = [difference / 2 for difference in differences]
    sums = {a + b for a, b in itertools.combinations_with_replacement(halves, 2)}
    if 0.0 in sums:
        return
    exact = wilcoxon(differences, method="exact").pvalue
    assert paired_shift(differences).p == pytest.approx(exact, abs=1e-12)


def test_no_difference_is_no_finding() -> None:
    assert paired_shift([0.0] * 12).p == 1.0
    assert unpaired_shift([1.0] * 12, [1.0] * 12).p == 1.0


def test_refuses_what_has_no_shift() -> None:
    for bad in ([], [math.nan]):
        with pytest.raises(ValueError, match="at least one value"):
            unpaired_shift([1.0], bad)


@pytest.mark.parametrize("paired", [True, False])
def test_smallest_p_is_what_perfect_order_gives(paired: bool) -> None:
    for n in range(1, 9):
        low, high = [float(i) for i in range(n)], [float(i + n) for i in range(n)]
        found = paired_shift([i + 1.0 for i in low]) if paired else unpaired_shift(low, high)
        assert found.p == pytest.approx(min(1.0, found.smallest_p))
