"""Equivalence, differences, and what the exact lane refuses to claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.harness.model import (
    Arm,
    Experiment,
    Gate,
    Lane,
    Metric,
    Outcome,
    Rule,
    Sample,
    Scale,
    Verdict,
)
from hyperbox.harness.verdicts.gates import decide, settled
from hyperbox.harness.verdicts.targets import EXACT_RESOLUTION

EXPERIMENT = Experiment(
    id="e.e",
    suite="e",
    title="Two arms",
    arms=(Arm("off", "Off"), Arm("on", "On")),
    metrics=(
        Metric("cost", "Cost", "us", "lower"),
        Metric("rate", "Rate", "1/s", "higher"),
        Metric("shape", "Shape", "1", "neither"),
    ),
    program=("true",),
    blocks=32,
)


def gate(rule: Rule, margin: float, metric: str = "cost", scale: Scale = Scale.RATIO) -> Gate:
    return Gate("e.g", "Gate", "as it says", "e.e", metric, rule, margin, "on", "off", scale=scale)


WITHIN = gate(Rule.WITHIN, 0.02)


def pairs(off: Sequence[float], on: Sequence[float], metric: str = "cost") -> list[Sample]:
    samples = []
    for block, (a, b) in enumerate(zip(off, on, strict=True)):
        samples.append(Sample(block, block % 2, "off", metric, a))
        samples.append(Sample(block, 1 - block % 2, "on", metric, b))
    return samples


def ratios(values: Sequence[float], metric: str = "cost") -> list[Sample]:
    return pairs([100.0] * len(values), [100.0 * value for value in values], metric)


def around(centre: float, n: int = 8, spread: float = 0.001) -> list[float]:
    return [centre * math.exp(spread * (i - (n - 1) / 2) / n) for i in range(n)]


def verdict(gate_: Gate, samples: Sequence[Sample], lane: Lane = Lane.KVM) -> Verdict:
    return decide(gate_, EXPERIMENT, "6.12", lane, samples)


@pytest.mark.parametrize(
    ("centre", "outcome", "words"),
    [
        (1.0, Outcome.PASS, "lies wholly within -2.0 % … +2.0 %"),
        (1.01, Outcome.PASS, "lies wholly within"),
        (1.05, Outcome.FAIL, "lies wholly outside of"),
        (0.95, Outcome.FAIL, "lies wholly outside of"),
        (1.02, Outcome.INCONCLUSIVE, "spans a limit of"),
        (1 / 1.02, Outcome.INCONCLUSIVE, "spans a limit of"),
    ],
)
def test_within(centre: float, outcome: Outcome, words: str) -> None:
    found = verdict(WITHIN, ratios(around(centre)))
    assert found.outcome is outcome
    assert words in found.reason
    assert found.details["limit"] == 0.02
    assert found.details["limit_low"] == pytest.approx(-0.0196, abs=1e-4)


def test_within_may_judge_a_metric_without_a_better_side() -> None:
    found = verdict(gate(Rule.WITHIN, 0.02, "shape"), ratios(around(1.0), "shape"))
    assert found.outcome is Outcome.PASS


lists = st.lists(st.floats(0.9, 1.1), min_size=8, max_size=12)


@settings(deadline=None)
@given(lists, st.sampled_from(Lane))
def test_equivalence_does_not_care_which_arm_is_the_baseline(
    values: list[float], lane: Lane
) -> None:
    here = decide(WITHIN, EXPERIMENT, "6.12", lane, ratios(values))
    swapped = replace(WITHIN, arm="off", baseline="on")
    assert decide(swapped, EXPERIMENT, "6.12", lane, ratios(values)).outcome is here.outcome


@settings(deadline=None)
@given(lists, st.sampled_from((0.001, 0.5, 4.0, 1024.0)))
def test_units_do_not_matter_to_a_ratio(values: list[float], unit: float) -> None:
    samples = ratios(values)
    scaled = [replace(sample, value=sample.value * unit) for sample in samples]
    for rule in (Rule.WITHIN, Rule.NON_INFERIOR, Rule.REDUCES_AT_LEAST):
        here, there = verdict(gate(rule, 0.03), samples), verdict(gate(rule, 0.03), scaled)
        assert there.estimate == pytest.approx(here.estimate, abs=1e-12)
        assert there.outcome is here.outcome


@settings(deadline=None)
@given(lists, st.sampled_from((Rule.WITHIN, Rule.NON_INFERIOR)))
def test_a_wider_margin_never_turns_pass_into_fail(values: list[float], rule: Rule) -> None:
    order = [Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]
    found = [verdict(gate(rule, m), ratios(values[:8])).outcome for m in (0.0, 0.01, 0.05, 0.3)]
    ranks = [order.index(outcome) for outcome in found]
    assert ranks == sorted(ranks)


@settings(deadline=None)
@given(lists, st.floats(0.0, 1.0))
def test_better_blocks_never_turn_pass_into_fail(values: list[float], gain: float) -> None:
    order = [Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]
    rule = gate(Rule.NON_INFERIOR, 0.02)
    better = [value * math.exp(-gain) for value in values[:8]]
    here, there = verdict(rule, ratios(values[:8])), verdict(rule, ratios(better))
    assert order.index(there.outcome) >= order.index(here.outcome)


def test_differences_decide_where_ratios_cannot() -> None:
    """Faults per second: none at all without the change, next to none with it."""
    off, on = [0.0] * 8, [0.1, 0.0, 0.2, 0.0, 0.1, 0.0, 0.0, 0.1]
    ratio = verdict(gate(Rule.NON_INFERIOR, 0.5), pairs(off, on))
    assert ratio.outcome is Outcome.ERROR
    found = verdict(gate(Rule.NON_INFERIOR, 0.5, scale=Scale.DIFFERENCE), pairs(off, on))
    assert found.outcome is Outcome.PASS
    assert (
        "0.0500 us (0 … 0.200) lies wholly on the good side of the limit 0.500 us" in found.reason
    )
    worse = verdict(gate(Rule.NON_INFERIOR, 0.5, scale=Scale.DIFFERENCE), pairs(off, [1.0] * 8))
    assert worse.outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("rule", "metric", "on", "outcome"),
    [
        (Rule.REDUCES_AT_LEAST, "cost", 7.0, Outcome.PASS),
        (Rule.REDUCES_AT_LEAST, "cost", 9.0, Outcome.FAIL),
        (Rule.WITHIN, "cost", 11.0, Outcome.PASS),
        (Rule.WITHIN, "cost", 7.0, Outcome.FAIL),
        (Rule.NON_INFERIOR, "rate", 9.0, Outcome.PASS),
        (Rule.NON_INFERIOR, "rate", 7.0, Outcome.FAIL),
    ],
)
def test_every_rule_by_differences(rule: Rule, metric: str, on: float, outcome: Outcome) -> None:
    samples = pairs([10.0] * 8, [on] * 8, metric)
    found = verdict(gate(rule, 2.0, metric, Scale.DIFFERENCE), samples)
    assert found.outcome is outcome, found.reason
    assert found.estimate == on - 10.0


@pytest.mark.parametrize("n", [8, 12, 20, 32])
def test_the_exact_lane_resolves_half_a_percent_with_eight_starts(n: int) -> None:
    """Spreads of 0.05 to 0.1 %, as measured; planted 0.5 % more work."""
    rng = np.random.default_rng(n)
    rule = gate(Rule.NON_INFERIOR, 0.002)
    for spread in (0.0005, 0.001):
        planted = [
            verdict(rule, ratios(np.exp(rng.normal(0.005, spread, n)).tolist()), Lane.EXACT)
            for _ in range(40)
        ]
        found = [v.outcome for v in planted]
        assert found.count(Outcome.FAIL) >= 36
        assert Outcome.PASS not in found
        assert all(v.n == 8 for v in planted if v.outcome is Outcome.FAIL and n == 8)


def test_the_exact_lane_claims_nothing_below_the_spread_of_starts() -> None:
    """32 starts that spread by 2 % would show 1.5 % to a signed-rank test."""
    values = [0.015 + 0.02 * float(q) for q in np.linspace(-1.6, 1.6, 32)]
    samples = ratios([math.exp(values[(7 * i) % 32]) for i in range(32)])
    rule = gate(Rule.NON_INFERIOR, 0.0)
    assert verdict(rule, samples, Lane.KVM).outcome is Outcome.FAIL
    found = verdict(rule, samples, Lane.EXACT)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "closer to the limit 0.0 % than perturbed starts can resolve" in found.reason


@pytest.mark.parametrize("shift", [0.0, 1e-9, EXACT_RESOLUTION / 2])
def test_starts_that_all_agree_claim_nothing_below_the_resolution(shift: float) -> None:
    samples = ratios([1.02 * (1 + shift)] * 8)
    found = verdict(gate(Rule.NON_INFERIOR, 0.02), samples, Lane.EXACT)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "all 8 perturbed starts gave the same value" in found.remarks


def test_starts_that_all_agree_decide_beyond_the_resolution() -> None:
    for ratio, outcome in ((1.0, Outcome.PASS), (1.025, Outcome.FAIL)):
        found = verdict(gate(Rule.NON_INFERIOR, 0.02), ratios([ratio] * 8), Lane.EXACT)
        assert found.outcome is outcome
        assert (found.details["spread"], found.details["lag1"]) == (0.0, 0.0)


def test_starts_of_two_times_are_told_by_the_middle_one() -> None:
    """One start in five is 2 % faster, in either arm: ranks see those, the median does not."""
    modes = [0.98, 1.0, 1.0, 1.0, 1.02] * 4
    samples = ratios([0.995 * mode for mode in modes])
    rule = gate(Rule.REDUCES_AT_LEAST, 0.0025)
    found = verdict(rule, samples, Lane.EXACT)
    assert (found.outcome, found.n) == (Outcome.PASS, 20)
    assert found.estimate == pytest.approx(-0.005)
    assert verdict(rule, samples, Lane.KVM).outcome is Outcome.INCONCLUSIVE


def test_an_interval_that_too_many_blocks_gainsay_decides_nothing() -> None:
    """Some pairs are slightly worse, the others far better: is that an improvement?"""
    values = [0.8, 0.81, 1.001, 0.82, 0.83, 1.002, 0.84, 0.85, 0.855, 0.86, 0.87, 0.88]
    found = verdict(gate(Rule.NON_INFERIOR, 0.0), ratios(values))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason == (
        "-14.6 % (-18.5 … -6.6) lies wholly on the good side of the limit 0.0 %, "
        "but 2 of 12 single blocks do not: too many"
    )
    assert found.details["p_met"] > found.details["alpha"]
    worse = verdict(gate(Rule.NON_INFERIOR, 0.0), ratios([1 / value for value in values]))
    assert "wholly on the wrong side of the limit 0.0 %, but 2 of 12" in worse.reason
    alike = verdict(gate(Rule.WITHIN, 0.0005), ratios([1 / value for value in values]))
    assert "wholly outside of -0.05 % … +0.05 %, but 2 of 12" in alike.reason


def test_a_verdict_that_came_is_not_called_wanting() -> None:
    """Blocks spread by 5 %: too much for the limit of 2 %, not for an effect of 50 %."""
    wide = [1.0 + 0.05 * (-1) ** n * (1 + n / 8) for n in range(8)]
    undecided = verdict(gate(Rule.NON_INFERIOR, 0.02), ratios(wide))
    assert any(remark.startswith("underpowered: a chance") for remark in undecided.remarks)
    far = verdict(gate(Rule.NON_INFERIOR, 0.02), ratios([value / 2 for value in wide]))
    assert far.outcome is Outcome.PASS
    words = "underpowered for smaller effects (the verdict stands): a chance of"
    assert any(remark.startswith(words) for remark in far.remarks)


def test_half_of_the_starts_tied_is_no_nonsense() -> None:
    found = verdict(WITHIN, ratios([1.0, 1.0, 1.0, 1.0, 1.001, 1.0, 0.999, 1.0]), Lane.EXACT)
    assert found.outcome is Outcome.PASS
    assert found.estimate == pytest.approx(0.0, abs=1e-6)
    assert all(math.isfinite(value) for value in found.details.values())


def test_a_failure_for_a_family_needs_more_blocks() -> None:
    found = verdict(gate(Rule.NON_INFERIOR, 0.02), ratios([1.5] * 8))
    assert found.outcome is Outcome.FAIL
    assert settled(found, 8)
    assert not settled(found, 8, family=40)
    more = verdict(gate(Rule.NON_INFERIOR, 0.02), ratios([1.5] * 20))
    assert more.n == 8, "the verdict stands by its first look"
    assert settled(more, 20, family=40)
    passed = verdict(gate(Rule.NON_INFERIOR, 0.02), ratios([1.0] * 8))
    assert settled(passed, 8, family=40)
