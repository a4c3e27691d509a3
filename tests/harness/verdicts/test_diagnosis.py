"""Diagnostics find what was planted, and rarely what was not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.harness.model import Gate, Lane, Metric, Rule
from hyperbox.harness.verdicts.blocks import DecidedBlock
from hyperbox.harness.verdicts.diagnosis import UNDERPOWERED, Diagnosis, diagnose
from hyperbox.harness.verdicts.targets import target_of

METRIC = Metric("cost", "Cost", "us", "lower")
PAIRED = Gate("g.g", "G", "t", "g.e", "cost", Rule.NON_INFERIOR, 0.02, "on", "off")
LEVEL = Gate("g.l", "G", "t", "g.e", "cost", Rule.AT_MOST, 75.0, "on")


def diagnosed(
    values: Sequence[float],
    gate: Gate = PAIRED,
    first: Sequence[bool] = (),
    planned: int = 8,
    lane: Lane = Lane.KVM,
) -> Diagnosis:
    order = first or [place % 2 == 0 for place in range(len(values))]
    blocks = [DecidedBlock(n, v, f) for n, (v, f) in enumerate(zip(values, order, strict=True))]
    return diagnose(gate, blocks, target_of(gate, METRIC, lane), planned)


def noise(n: int, seed: int = 3, spread: float = 0.002) -> list[float]:
    return [float(v) for v in np.random.default_rng(seed).normal(0, spread, n)]


def words(found: Diagnosis) -> str:
    return "; ".join(found.remarks)


def test_quiet_blocks_have_numbers_and_no_remarks() -> None:
    found = diagnosed(noise(32))
    assert found.remarks == ()
    assert found.details["spread"] == pytest.approx(0.002, rel=0.5)
    assert found.details["power"] > 0.99
    assert found.details["distance"] == pytest.approx(math.log(1.02))


def test_order_effect() -> None:
    first = [place % 3 != 0 for place in range(20)]
    values = [v + (0.02 if f else 0.0) for v, f in zip(noise(20), first, strict=True)]
    found = diagnosed(values, first=first)
    assert "order effect" in words(found)
    assert found.details["order_effect"] == pytest.approx(0.02, abs=0.003)


def test_drift_and_likeness_of_neighbours() -> None:
    rising = [v + 0.001 * place for place, v in enumerate(noise(20))]
    assert "drift: blocks rise over the run" in words(diagnosed(rising))
    assert "the verdict is on the blocks measured" in words(diagnosed(rising))
    waves = [v + 0.02 * math.sin(place / 3) for place, v in enumerate(noise(32))]
    assert "resemble their predecessors" in words(diagnosed(waves))


def test_outliers_and_warm_up() -> None:
    assert "2 of 20 blocks lie far off" in words(diagnosed([*noise(9), 0.1, *noise(9, 4), -0.2]))
    found = diagnosed([0.3, 0.2, *noise(18)])
    assert found.details["warm_up"] == 2
    assert "warm-up: the first 2" in words(found)
    fresh = diagnosed([0.3, 0.2, *noise(18)], lane=Lane.EXACT)
    assert "2 of 20 blocks lie far off" in words(fresh)
    assert "warm-up" not in words(fresh), "each start of the exact lane is fresh"


def test_blocks_that_fall_into_groups() -> None:
    """Equal loops of which each takes one of two times: as measured."""
    measured = [-2.24, -2.28, 0.003, 0.001, -0.002, -2.25, 2.25, 0.002]
    found = diagnosed([math.log1p(value / 100) for value in measured])
    assert found.details["groups"] == 3
    assert "into 3 groups: 3 at -2.2 %, 4 at 0.00 %, 1 at +2.2 %" in words(found)
    two = diagnosed([60.0, 90.0, 60.1, 90.1, 60.0, 60.0, 90.0, 60.0], LEVEL)
    assert "into 2 groups: 5 at 60, 3 at 90" in words(two)


def test_one_block_far_off_is_an_outlier_and_no_group() -> None:
    assert diagnosed([*[0.001 * n for n in range(7)], 0.5]).details["groups"] == 0


def test_asymmetry() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0, 0.001, 32) + 0.05 * (np.arange(32) % 3 == 0)
    assert "asymmetric" in words(diagnosed(values.tolist()))
    assert "asymmetric" not in words(diagnosed(noise(32)))


def test_underpowered() -> None:
    found = diagnosed(noise(8, spread=0.05))
    assert found.details["power"] < 0.5
    assert UNDERPOWERED in words(found)
    assert UNDERPOWERED not in words(diagnosed(noise(8, spread=0.05), planned=32)) or (
        diagnosed(noise(8, spread=0.05), planned=32).details["power"] > found.details["power"]
    )


def test_too_few_blocks_say_nothing() -> None:
    assert diagnosed(noise(7)) == Diagnosis({}, ())


def test_levels_have_no_order_effect() -> None:
    found = diagnosed([v + 60 for v in noise(8)], LEVEL)
    assert "p_order" not in found.details
    assert found.details["distance"] == 7.5


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from((0.0, 0.0, 1.0, -0.5, 1e-300, 1e300)), min_size=8, max_size=32))
def test_any_values_give_finite_numbers(values: list[float]) -> None:
    assert all(math.isfinite(value) for value in diagnosed(values).details.values())


def test_sound_blocks_rarely_get_a_remark() -> None:
    rng = np.random.default_rng(11)
    shown = [
        diagnosed(rng.normal(0, 0.001, 20).tolist(), first=(rng.random(20) < 0.5).tolist())
        for _ in range(400)
    ]
    for name in ("p_order", "p_drift", "p_lag1"):
        assert sum(found.details[name] < 0.01 for found in shown) <= 12
    assert sum("asymmetric" in words(found) for found in shown) <= 8
    assert sum(found.details["groups"] > 0 for found in shown) <= 2
