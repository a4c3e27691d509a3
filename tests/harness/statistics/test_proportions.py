"""Bounds of rates against scipy and their definition."""

from __future__ import annotations

import pytest
from scipy.stats import binom, binomtest

from hyperbox.harness.statistics.proportions import CONFIDENCE, Rate


def test_bounds_match_scipy() -> None:
    for count, trials in ((0, 200), (3, 1000), (9, 10)):
        interval = binomtest(count, trials).proportion_ci(2 * CONFIDENCE - 1, "exact")
        assert Rate(count, trials).lower == pytest.approx(interval.low)
        assert Rate(count, trials).upper == pytest.approx(interval.high)


def test_bounds_are_what_defines_them() -> None:
    """Clopper and Pearson 1934: at each bound the count seen has a chance of 1 %."""
    for count, trials in ((7, 20), (1, 36), (310, 20_000)):
        rate, chance = Rate(count, trials), pytest.approx(1 - CONFIDENCE, rel=1e-6)
        assert binom.cdf(count, trials, rate.upper) == chance
        assert binom.sf(count - 1, trials, rate.lower) == chance
    for trials in (8, 36, 1000):
        assert Rate(0, trials).upper == pytest.approx(1 - (1 - CONFIDENCE) ** (1 / trials))
        assert Rate(trials, trials).lower == pytest.approx((1 - CONFIDENCE) ** (1 / trials))


def test_no_trial_knows_nothing() -> None:
    assert (Rate(0, 0).lower, Rate(0, 0).rate, Rate(0, 0).upper) == (0.0, 0.0, 1.0)
