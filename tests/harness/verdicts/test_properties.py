"""What holds of every rule in every lane, whatever was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

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
from hyperbox.harness.statistics.design import LOOKS
from hyperbox.harness.verdicts.gates import decide

EXPERIMENT = Experiment(
    id="e.e",
    suite="e",
    title="Two arms",
    arms=(Arm("off", "Off"), Arm("on", "On")),
    metrics=(Metric("cost", "Cost", "us", "lower"), Metric("rate", "Rate", "1/s", "higher")),
    program=("true",),
    blocks=LOOKS[-1],
)
RANK = {Outcome.FAIL: -1, Outcome.INCONCLUSIVE: 0, Outcome.PASS: 1}
PAIRED = (Rule.REDUCES_AT_LEAST, Rule.NON_INFERIOR, Rule.WITHIN)
LEVELS = (Rule.AT_MOST, Rule.AT_LEAST)
LANES = (Lane.KVM, Lane.EXACT)

# Quarters: few and exact, so that ties, limits that are met, and mirror images abound.
quarters = st.integers(1, 24).map(lambda whole: whole / 4)
lengths = st.sampled_from(LOOKS)
values = lengths.flatmap(lambda n: st.lists(quarters, min_size=n, max_size=n))
pairs = lengths.flatmap(lambda n: st.lists(st.tuples(quarters, quarters), min_size=n, max_size=n))
lanes = st.sampled_from(LANES)


def gate(rule: Rule, margin: float, scale: Scale = Scale.DIFFERENCE, metric: str = "cost") -> Gate:
    baseline = "off" if rule in PAIRED else None
    return Gate("e.g", "Gate", "", "e.e", metric, rule, margin, "on", baseline, scale=scale)


def samples(
    on: Sequence[float], off: Sequence[float] | None = None, metric: str = "cost"
) -> list[Sample]:
    off = [1.0] * len(on) if off is None else off
    found = []
    for block, (a, b) in enumerate(zip(off, on, strict=True)):
        found.append(Sample(block, block % 2, "off", metric, a))
        found.append(Sample(block, 1 - block % 2, "on", metric, b))
    return found


def verdict(gate_: Gate, lane: Lane, measured: Sequence[Sample]) -> Verdict:
    return decide(gate_, EXPERIMENT, "6.12", lane, measured)


def of_pairs(gate_: Gate, lane: Lane, measured: Sequence[tuple[float, float]]) -> Verdict:
    off, on = zip(*measured, strict=True)
    return verdict(gate_, lane, samples(on, off, gate_.metric))


@settings(deadline=None, max_examples=40)
@given(pairs, lanes, st.sampled_from(Scale), st.sampled_from(PAIRED))
def test_an_easier_margin_is_never_decided_worse(
    measured: list[tuple[float, float]], lane: Lane, scale: Scale, rule: Rule
) -> None:
    margins = (0.0, 0.25, 0.5, 0.75)
    found = [RANK[of_pairs(gate(rule, m, scale), lane, measured).outcome] for m in margins]
    assert found == sorted(found, reverse=rule is Rule.REDUCES_AT_LEAST)


@settings(deadline=None, max_examples=40)
@given(values, lanes)
def test_an_easier_level_is_never_decided_worse(measured: list[float], lane: Lane) -> None:
    for rule in LEVELS:
        margins = (0.5, 1.0, 2.0, 3.5, 6.0)
        found = [RANK[verdict(gate(rule, m), lane, samples(measured)).outcome] for m in margins]
        assert found == sorted(found, reverse=rule is Rule.AT_LEAST)


@settings(deadline=None, max_examples=40)
@given(pairs, lanes, quarters, st.sampled_from((*PAIRED, *LEVELS)), st.integers(-20, 20))
def test_the_unit_does_not_matter(
    measured: list[tuple[float, float]], lane: Lane, margin: float, rule: Rule, exponent: int
) -> None:
    unit = 2.0**exponent
    scaled = [(off * unit, on * unit) for off, on in measured]
    here = of_pairs(gate(rule, margin), lane, measured)
    there = of_pairs(gate(rule, margin * unit), lane, scaled)
    assert (there.outcome, there.n) == (here.outcome, here.n)
    if rule in PAIRED:
        by_ratio = gate(rule, 0.25, Scale.RATIO)
        here, there = of_pairs(by_ratio, lane, measured), of_pairs(by_ratio, lane, scaled)
        assert (there.outcome, there.n) == (here.outcome, here.n)


@settings(deadline=None, max_examples=40)
@given(pairs, lanes, quarters)
def test_a_target_missed_one_way_round_is_met_the_other_way(
    measured: list[tuple[float, float]], lane: Lane, margin: float
) -> None:
    """ "Not worse by the margin" of A against B is the denial of "better by it" of B against A."""
    here = of_pairs(gate(Rule.NON_INFERIOR, margin), lane, measured)
    there = of_pairs(gate(Rule.REDUCES_AT_LEAST, margin), lane, [(b, a) for a, b in measured])
    assert (RANK[there.outcome], there.n) == (-RANK[here.outcome], here.n)


@settings(deadline=None, max_examples=40)
@given(pairs, lanes, quarters)
def test_lower_is_better_mirrors_higher_is_better(
    measured: list[tuple[float, float]], lane: Lane, margin: float
) -> None:
    cost = of_pairs(gate(Rule.NON_INFERIOR, margin), lane, measured)
    rate = of_pairs(
        gate(Rule.NON_INFERIOR, margin, metric="rate"), lane, [(b, a) for a, b in measured]
    )
    assert (rate.outcome, rate.n) == (cost.outcome, cost.n)
    off, on = zip(*measured, strict=True)
    most = verdict(gate(Rule.AT_MOST, margin), lane, samples(on, off))
    least = verdict(gate(Rule.AT_LEAST, -margin), lane, samples([-value for value in on], off))
    assert (least.outcome, least.n) == (most.outcome, most.n)


@settings(deadline=None, max_examples=40)
@given(pairs, lanes, quarters, st.sampled_from(PAIRED))
def test_nothing_is_both_met_and_missed(
    measured: list[tuple[float, float]], lane: Lane, margin: float, rule: Rule
) -> None:
    found = of_pairs(gate(rule, margin), lane, measured)
    details, alpha = found.details, found.details["alpha"]
    assert max(details["p_met"], details["p_missed"]) > alpha
    if found.outcome is Outcome.PASS:
        assert details["p_met"] <= alpha
    if found.outcome is Outcome.FAIL:
        assert details["p_missed"] <= alpha


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(quarters, quarters), min_size=8, max_size=8), lanes, quarters)
def test_the_same_blocks_again_never_turn_a_verdict(
    measured: list[tuple[float, float]], lane: Lane, margin: float
) -> None:
    for rule in PAIRED:
        here = RANK[of_pairs(gate(rule, margin), lane, measured).outcome]
        for times in (2, 3, 4):
            again = RANK[of_pairs(gate(rule, margin), lane, measured * times).outcome]
            assert again == here or here == 0


def spoiled(sample: Sample, value: float) -> Sample:
    """A sample that slipped past its own check, as a damaged record might."""
    bad = replace(sample)
    object.__setattr__(bad, "value", value)
    return bad


@settings(deadline=None, max_examples=40)
@given(
    pairs,
    lanes,
    st.sampled_from(Rule),
    st.sampled_from((math.nan, math.inf, -math.inf)),
    st.data(),
)
def test_a_value_that_is_none_is_never_a_verdict(
    measured: list[tuple[float, float]], lane: Lane, rule: Rule, bad: float, data: st.DataObject
) -> None:
    off, on = zip(*measured, strict=True)
    found = samples(on, off)
    place = data.draw(st.integers(0, len(on) - 1)) * 2 + 1  # the judged arm's
    found[place] = spoiled(found[place], bad)
    said = verdict(gate(rule, 0.25), lane, found)
    assert said.outcome is Outcome.ERROR
    assert f"in block {found[place].block}" in said.reason


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("rule", PAIRED)
@pytest.mark.parametrize("arm", [0, 1])
@pytest.mark.parametrize("bad", [0.0, -1.0, -0.0])
def test_a_ratio_of_what_cannot_be_measured_is_never_a_verdict(
    rule: Rule, lane: Lane, arm: int, bad: float
) -> None:
    found = samples([1.0] * 12)
    found[10 + arm] = replace(found[10 + arm], value=bad)
    said = verdict(gate(rule, 0.25, Scale.RATIO), lane, found)
    assert said.outcome is Outcome.ERROR
    assert "a ratio needs positive values" in said.reason
