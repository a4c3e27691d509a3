"""Against independent implementations: R's wilcox.test, psignrank, scipy, and closed forms.

The figures are R 4.2.2's, with 15 digits; scipy's are computed here.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, quantile_test, wilcoxon

from hyperbox.harness.statistics.design import InferenceKind
from hyperbox.harness.statistics.location import (
    critical_value,
    locate,
    p_above,
    p_below,
    signed_rank_tail,
    tail,
)

# Hamilton depression scores before and after treatment: Hollander and Wolfe 1973, page 29.
BEFORE = (1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30)
AFTER = (0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29)
DEPRESSION = [b - a for b, a in zip(BEFORE, AFTER, strict=True)]

# Darwin's maize, crossed minus self-fertilised in eighths of an inch (Fisher 1935), with
# i / 1000 added to the i-th so that nothing is tied.
EIGHTHS = (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)
MAIZE = [eighths + place / 1000 for place, eighths in enumerate(EIGHTHS, start=1)]

# set.seed(4); round(rexp(32) * 1000) / 1000 + (1:32) * 1e-5
SKEWED = [
    0.17201, 4.30402, 0.86803, 0.80304, 0.62705, 0.73506, 0.44907, 0.05108,
    0.50909, 0.8371, 2.68011, 0.28812, 0.40513, 0.42914, 0.34015, 1.04916,
    0.06017, 0.13418, 1.84019, 1.0122, 0.24421, 1.24722, 5.54023, 0.16824,
    1.83325, 0.05826, 0.39127, 1.24828, 0.49229, 0.5613, 1.37831, 1.80032,
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "limit", "greater", "less"),
    [
        (DEPRESSION, 0.0, 0.01953125, 0.986328125),
        (MAIZE, 0.0, 0.0206298828125, None),
        (SKEWED, 0.5, 0.0248846930917352, None),
    ],
)
def test_p_values_are_those_of_r(
    values: list[float], limit: float, greater: float, less: float | None
) -> None:
    assert p_above(values, limit) == pytest.approx(greater, rel=1e-12)
    if less is not None:
        assert p_below(values, limit) == pytest.approx(less, rel=1e-12)


@pytest.mark.parametrize(
    ("values", "level", "estimate", "interval"),
    [
        (DEPRESSION, 0.95, 0.46, (0.01, 0.786)),
        (DEPRESSION, 0.99, 0.46, (-0.1135, 0.987)),
        (MAIZE, 0.95, 25.006, (4.0075, 41.51)),
        (MAIZE, 0.9875, 25.006, (-11.9865, 45.5085)),
        (SKEWED, 0.9875, 0.7483275, (0.44768, 1.23362)),
    ],
)
def test_estimates_and_intervals_are_those_of_r(
    values: list[float], level: float, estimate: float, interval: tuple[float, float]
) -> None:
    location = locate(values, (1 - level) / 2)
    assert location.estimate == pytest.approx(estimate)
    assert (location.low, location.high) == pytest.approx(interval)
    assert location.level >= level


def test_the_null_distribution_is_that_of_r() -> None:
    """psignrank(q, n), and qsignrank(p, 12) - 1 where the quantile itself exceeds p."""
    assert [signed_rank_tail(q, 12) for q in (0, 3, 9, 14)] == pytest.approx(
        [0.000244140625, 0.001220703125, 0.00805664062500001, 0.02612304687500002]
    )
    assert [signed_rank_tail(q, 20) for q in (52, 37, 43)] == pytest.approx(
        [0.02422046661376953, 0.00471782684326172, 0.00961685180664062]
    )
    assert [signed_rank_tail(q, 32) for q in (110, 128, 140)] == pytest.approx(
        [0.00157840573228896, 0.00495476252399385, 0.00972404773347080]
    )
    assert [critical_value(12, alpha) for alpha in (0.025, 0.01, 0.005, 0.00625)] == [13, 9, 7, 8]


@given(st.integers(1, 40), st.data())
def test_sign_tails_match_scipy(n: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n))
    expected = binomtest(count, n, alternative="less").pvalue
    assert tail(count, n, InferenceKind.SIGN) == pytest.approx(expected)


values_near_one = st.lists(st.floats(0.5, 1.5), min_size=8, max_size=32)


@given(values_near_one)
def test_sign_tests_match_scipys_test_of_the_median(values: list[float]) -> None:
    """scipy's "less": the median is below the limit."""
    expected = quantile_test(values, q=1.0, p=0.5, alternative="less").pvalue
    assert p_below(values, 1.0, kind=InferenceKind.SIGN, limit_counts=True) <= expected + 1e-12
    if 1.0 not in values:
        assert p_below(values, 1.0, kind=InferenceKind.SIGN) == pytest.approx(expected)


@given(values_near_one, st.sampled_from((0.025, 0.01, 0.00625)))
def test_sign_intervals_are_order_statistics(values: list[float], alpha: float) -> None:
    location = locate(values, alpha, InferenceKind.SIGN)
    cut = critical_value(len(values), alpha, InferenceKind.SIGN) or 0
    ordered = sorted(values)
    assert (location.low, location.high) == (ordered[cut], ordered[-1 - cut])
    assert location.level >= 1 - 2 * alpha or cut == 0


@given(st.lists(st.integers(1, 10**6), min_size=8, max_size=32, unique=True), st.data())
def test_signed_rank_p_values_match_scipy(magnitudes: list[int], data: st.DataObject) -> None:
    values = [m * data.draw(st.sampled_from((-1.0, 1.0))) for m in magnitudes]
    assert p_above(values, 0.0) == pytest.approx(
        wilcoxon(values, alternative="greater", method="exact").pvalue
    )
