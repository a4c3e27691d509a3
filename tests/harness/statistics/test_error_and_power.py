"""Errors and power of the looks, against what follows on paper and not by simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom, binomtest, multivariate_normal, norm

from hyperbox.harness.statistics.design import ALPHA, LOOKS, ONE_LIMIT, InferenceKind, Target
from hyperbox.harness.statistics.location import critical_value, points
from hyperbox.harness.statistics.power import detectable, power
from hyperbox.harness.statistics.sequential import first_decisions

DISTANCES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


def decided_by_signs(cuts: Sequence[int], good: float) -> list[float]:
    """Follow the number of bad values as it walks from look to look, decision by decision."""
    walking, shown, decided, before = {0: 1.0}, 0.0, [], 0
    for look, cut in zip(LOOKS, cuts, strict=True):
        new: dict[int, float] = {}
        for bad, chance in walking.items():
            for more in range(look - before + 1):
                step = chance * float(binom.pmf(more, look - before, 1 - good))
                new[bad + more] = new.get(bad + more, 0.0) + step
        shown += sum(chance for bad, chance in new.items() if bad <= cut)
        walking = {bad: chance for bad, chance in new.items() if cut < bad < look - cut}
        decided.append(shown)
        before = look
    return decided


def sign_cuts() -> list[int]:
    cuts = [
        critical_value(look, alpha, InferenceKind.SIGN)
        for look, alpha in zip(LOOKS, ONE_LIMIT, strict=True)
    ]
    return [cut for cut in cuts if cut is not None]


def test_the_sign_test_errs_as_rarely_as_its_walk_says() -> None:
    """Over all four looks 1.7 % of 2.5 %: its steps are coarse."""
    (*_, error) = decided_by_signs(sign_cuts(), 0.5)
    assert error == pytest.approx(0.0173, abs=0.0002)
    assert error < ALPHA
    values = np.random.default_rng(8).standard_normal((40_000, 32))
    target = Target(low=0.0, high=None, kind=InferenceKind.SIGN, alphas=ONE_LIMIT)
    passes = int((first_decisions(values, target).side == 1).sum())
    assert binomtest(passes, 40_000, error).pvalue > 0.001


@pytest.mark.parametrize("look", range(4))
@pytest.mark.parametrize("distance", DISTANCES)
def test_power_of_levels_is_that_of_the_walk(look: int, distance: float) -> None:
    target = Target(low=0.0, high=None, kind=InferenceKind.SIGN, alphas=ONE_LIMIT)
    expected = decided_by_signs(sign_cuts(), float(norm.cdf(distance)))[look]
    assert power(distance, 1.0, LOOKS[look], target) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("distance", DISTANCES)
def test_power_at_the_first_look_is_that_of_8_values_on_one_side(distance: float) -> None:
    expected = float(norm.cdf(distance)) ** 8
    for kind in InferenceKind:
        target = Target(low=0.0, high=None, kind=kind)
        assert power(distance, 1.0, 8, target) == pytest.approx(expected, abs=0.005)


def lehmann(distance: float, n: int, cut: int) -> float:
    """Approximate power of one signed-rank test (Lehmann 1975, Nonparametrics, section 4.2)."""
    one = float(norm.cdf(distance))
    two = float(norm.cdf(distance * math.sqrt(2)))
    both = multivariate_normal(mean=[0, 0], cov=[[1, 0.5], [0.5, 1]])
    three = float(both.cdf([distance * math.sqrt(2)] * 2))
    mean = n * (n - 1) / 2 * two + n * one
    variance = n * (n - 1) * (n - 2) * (three - two**2)
    variance += n * (n - 1) / 2 * (2 * (one - two) ** 2 + 3 * two * (1 - two))
    variance += n * one * (1 - one)
    needed = n * (n + 1) / 2 - cut
    return float(norm.sf((needed - 0.5 - mean) / math.sqrt(variance)))


@pytest.mark.parametrize("n", [20, 32])
@pytest.mark.parametrize("distance", [0.25, 0.5, 0.75])
def test_power_of_the_signed_ranks_is_lehmanns(n: int, distance: float) -> None:
    values = np.random.default_rng(9).standard_normal((8000, n)) + distance
    cut = critical_value(n, 0.025)
    assert cut is not None
    bad = np.count_nonzero(points(values, InferenceKind.SIGNED_RANK) < 0, axis=1)
    assert float((bad <= cut).mean()) == pytest.approx(lehmann(distance, n, cut), abs=0.04)


@pytest.mark.parametrize("look", range(4))
@pytest.mark.parametrize("distance", DISTANCES)
def test_pairs_are_told_about_as_often_as_their_signs(look: int, distance: float) -> None:
    """Ranks must agree too, which costs little: signs are the harder judge of normal values."""
    signs = decided_by_signs(sign_cuts(), float(norm.cdf(distance)))[look]
    both = power(distance, 1.0, LOOKS[look], Target(low=0.0, high=None))
    assert signs - 0.04 <= both <= signs + 0.005


@pytest.mark.parametrize("kind", InferenceKind)
@pytest.mark.parametrize("look", range(4))
@pytest.mark.parametrize("distance", [0.5, 0.75, 1.0])
def test_looking_early_never_costs_the_last_look(
    look: int, distance: float, kind: InferenceKind
) -> None:
    """Several looks tell at least what the last one alone would."""
    alone = float(binom.cdf(sign_cuts()[look], LOOKS[look], norm.cdf(-distance)))
    assert power(distance, 1.0, LOOKS[look], Target(0.0, None, kind=kind)) >= alone - 0.035


@pytest.mark.parametrize(
    "target",
    [
        Target(low=0.0, high=None),
        Target(low=0.0, high=None, kind=InferenceKind.SIGN, alphas=ONE_LIMIT),
        Target(low=0.0, high=None, kind=InferenceKind.SIGN, alphas=ONE_LIMIT, resolution=0.0),
    ],
)
def test_power_tables_are_what_the_looks_do(target: Target) -> None:
    values = np.random.default_rng(2).standard_normal((4000, 32))
    for blocks in LOOKS:
        for distance in (0.5, 1.0, 1.75):
            side = first_decisions(values[:, :blocks] + distance, target).side
            assert power(distance, 1.0, blocks, target) == pytest.approx(
                np.mean(side == 1), abs=0.03
            )


def test_power_at_the_edges() -> None:
    target = Target(low=0.0, high=None, kind=InferenceKind.SIGN, resolution=0.001)
    assert power(0.0005, 0.0, 8, target) == 0.0
    assert power(0.005, 0.0, 8, target) == 1.0
    assert power(1.0, 1.0, 7, target) == 0.0
    assert detectable(1.0, 7, target) is None
    assert detectable(0.0, 8, target) == 0.001
    smallest = detectable(1.0, 8, target)
    assert smallest is not None
    assert power(smallest, 1.0, 8, target) == pytest.approx(0.8)
