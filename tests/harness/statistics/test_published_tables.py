"""Against tables in print and R: critical values, and shifts between unpaired sets.

Figures of R are those of version 4.2.2 with 15 digits; each has its call beside it.
"""

from __future__ import annotations

import pytest

from hyperbox.harness.statistics.design import InferenceKind
from hyperbox.harness.statistics.location import critical_value, tail
from hyperbox.harness.statistics.shifts import paired_shift, rank_sum_tail, unpaired_shift

# University of York, Department of Mathematics, statistical tables: "Critical values for T in the
# Wilcoxon signed-rank test", two-tailed, P = 0.05, n = 6 ... 25.
YORK = (0, 2, 3, 5, 8, 10, 13, 17, 21, 25, 29, 34, 40, 46, 52, 58, 65, 73, 81, 89)

# Largest q with psignrank(q, n) <= a, n = 5 ... 32, or -1: of qsignrank(a, n) and the one below.
SIGNED_RANK = {
    0.05: (
        0, 2, 3, 5, 8, 10, 13, 17, 21, 25, 30, 35, 41, 47, 53, 60, 67, 75, 83, 91, 100, 110,
        119, 130, 140, 151, 163, 175,
    ),
    0.01: (
        -1, -1, 0, 1, 3, 5, 7, 9, 12, 15, 19, 23, 27, 32, 37, 43, 49, 55, 62, 69, 76, 84, 92,
        101, 110, 120, 130, 140,
    ),
    0.005: (
        -1, -1, -1, 0, 1, 3, 5, 7, 9, 12, 15, 19, 23, 27, 32, 37, 42, 48, 54, 61, 68, 75, 83,
        91, 100, 109, 118, 128,
    ),
}  # fmt: skip

# Critical values of Mann and Whitney's U, two-tailed, 5 % (Auble 1953; Siegel 1956, table K):
# one set has m blocks, the other m ... 20.
U_TABLE = {
    5: (2, 3, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 17, 18, 19, 20),
    8: (13, 15, 17, 19, 22, 24, 26, 29, 31, 34, 36, 38, 41),
    10: (23, 26, 29, 33, 36, 39, 42, 45, 48, 52, 55),
    12: (37, 41, 45, 49, 53, 57, 61, 65, 69),
    20: (127,),
}

# Permeability of human chorioamnion at term and at 12 to 26 weeks: Hollander and Wolfe 1973,
# page 69, the example of R's wilcox.test.
TERM = (0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46)
EARLY = (1.15, 0.88, 0.90, 0.74, 1.21)

# set.seed(4); round(rexp(8) * 1000) / 1000 + (1:8) * 1e-5, and
# round(rexp(12) * 700) / 1000 + (1:12) * 1e-5
SKEWED = (0.17201, 4.30402, 0.86803, 0.80304, 0.62705, 0.73506, 0.44907, 0.05108)
LESS = (
    0.35701, 0.58602, 1.87603, 0.20204, 0.28305, 0.30006, 0.23807, 0.73408, 0.04209, 0.0941,
    1.28811, 0.70812,
)  # fmt: skip


@pytest.mark.parametrize("n", range(6, 26))
def test_signed_ranks_agree_with_the_table_of_york(n: int) -> None:
    assert critical_value(n, 0.025) == YORK[n - 6]


@pytest.mark.parametrize("alpha", SIGNED_RANK)
def test_signed_ranks_agree_with_r(alpha: float) -> None:
    found = [critical_value(n, alpha) for n in range(5, 33)]
    assert [-1 if value is None else value for value in found] == list(SIGNED_RANK[alpha])


def test_signs_agree_with_r() -> None:
    """pbinom(c(0, 1, 2, 5, 9), c(8, 10, 12, 20, 32), 0.5), and qbinom(0.025, n, 0.5) - 1."""
    places = ((0, 8), (1, 10), (2, 12), (5, 20), (9, 32))
    assert [tail(count, n, InferenceKind.SIGN) for count, n in places] == pytest.approx(
        [0.00390625, 0.0107421875, 0.0192871093750000, 0.0206947326660156, 0.0100308035034687]
    )
    assert [critical_value(n, 0.025, InferenceKind.SIGN) for _, n in places] == [0, 1, 2, 5, 9]


@pytest.mark.parametrize("m", U_TABLE)
def test_rank_sums_agree_with_the_table_in_print(m: int) -> None:
    for n, value in zip(range(m, 21), U_TABLE[m], strict=True):
        assert rank_sum_tail(value, m, n) <= 0.025 < rank_sum_tail(value + 1, m, n)
        assert rank_sum_tail(value, n, m) == rank_sum_tail(value, m, n)


def test_rank_sums_agree_with_r() -> None:
    """pwilcox(c(0, 9, 13, 20), 8, 8) and pwilcox(c(20, 37, 60), 12, 12)."""
    assert [rank_sum_tail(u, 8, 8) for u in (0, 9, 13, 20)] == pytest.approx(
        [7.77000777000777e-05, 7.38150738150738e-03, 2.49417249417249e-02, 1.17249417249417e-01]
    )
    assert [rank_sum_tail(u, 12, 12) for u in (20, 37, 60)] == pytest.approx(
        [0.00091488804639969, 0.02245099764954389, 0.25686129054684714]
    )


@pytest.mark.parametrize(
    ("one", "two", "level", "p", "estimate", "interval"),
    [
        (TERM, EARLY, 0.95, 0.254412254412254, 0.305, (-0.15, 0.76)),
        (TERM, EARLY, 0.99, 0.254412254412254, 0.305, (-0.35, 1.01)),
        (SKEWED, LESS, 0.95, 0.383742160831944, 0.154475, (-0.25905, 0.58496)),
    ],
)
def test_shifts_between_sets_are_those_of_r(
    one: tuple[float, ...],
    two: tuple[float, ...],
    level: float,
    p: float,
    estimate: float,
    interval: tuple[float, float],
) -> None:
    """wilcox.test(one, two, conf.int = TRUE, exact = TRUE, conf.level = level)."""
    found = unpaired_shift(two, one, (1 - level) / 2)  # R tells the first against the second
    assert found.p == pytest.approx(p, rel=1e-12)
    assert found.estimate == pytest.approx(estimate)
    assert (found.low, found.high) == pytest.approx(interval)
    assert found.level >= level


def test_shifts_of_pairs_are_those_of_r() -> None:
    """wilcox.test(d, conf.int = TRUE, exact = TRUE) with d of Hollander and Wolfe, page 29."""
    before = (1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30)
    after = (0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29)
    found = paired_shift([b - a for b, a in zip(before, after, strict=True)])
    assert found.p == pytest.approx(0.0390625, rel=1e-12)
    assert found.estimate == pytest.approx(0.46)
    assert (found.low, found.high) == pytest.approx((0.01, 0.786))
