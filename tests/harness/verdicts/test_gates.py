"""Gates: every rule, the three verdicts, and what must never become one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ExitCode
from hyperbox.harness.model import (
    Arm,
    Experiment,
    Gate,
    Lane,
    Metric,
    Outcome,
    Rule,
    Sample,
    Verdict,
)
from hyperbox.harness.verdicts.gates import broken, decide, exit_code, settled, skipped
from hyperbox.harness.verdicts.targets import limit_of
from hyperbox.harness.verdicts.wording import EXCEEDS_BAND

KERNEL = "6.12"
STALL = Metric("stall", "Memory stall", "us", "lower")
WORK = Metric("work", "Work done", "1/s", "higher")
NOTE = Metric("note", "Context", "1", "neither")
EXPERIMENT = Experiment(
    id="psi.storm",
    suite="psi",
    title="Swap storm",
    arms=(Arm("off", "Tuner off"), Arm("on", "Tuner on")),
    metrics=(STALL, WORK, NOTE),
    program=("true",),
    blocks=32,
)


def gate(rule: Rule, margin: float, metric: str = "stall", band: float | None = None) -> Gate:
    ratio = rule in (Rule.REDUCES_AT_LEAST, Rule.NON_INFERIOR)
    return Gate(
        id="psi.gate",
        title="Gate",
        target="as it says",
        experiment="psi.storm",
        metric=metric,
        rule=rule,
        margin=margin,
        arm="on",
        baseline="off" if ratio else None,
        band_upper=band,
    )


def paired(
    ratios: Sequence[float], metric: str = "stall", baseline: float = 1000.0
) -> list[Sample]:
    samples = []
    for block, ratio in enumerate(ratios):
        samples.append(Sample(block, block % 2, "off", metric, baseline))
        samples.append(Sample(block, 1 - block % 2, "on", metric, baseline * ratio))
    return samples


def single(values: Sequence[float], metric: str = "stall") -> list[Sample]:
    return [Sample(block, 0, "on", metric, value) for block, value in enumerate(values)]


def verdict(gate_: Gate, samples: Sequence[Sample], lane: Lane = Lane.EXACT) -> Verdict:
    return decide(gate_, EXPERIMENT, KERNEL, lane, samples)


def spread(centre: float, n: int = 8) -> list[float]:
    return [centre * (1 + 0.002 * (i - n / 2)) for i in range(n)]


REDUCES = gate(Rule.REDUCES_AT_LEAST, 0.05, band=0.15)


@pytest.mark.parametrize(
    ("gate_", "samples", "expected"),
    [
        (REDUCES, paired(spread(0.90)), Outcome.PASS),
        (REDUCES, paired(spread(0.97)), Outcome.FAIL),
        (REDUCES, paired(spread(0.95)), Outcome.INCONCLUSIVE),
        (REDUCES, paired(spread(1.20)), Outcome.FAIL),
        (gate(Rule.NON_INFERIOR, 0.02, "work"), paired(spread(1.0), "work"), Outcome.PASS),
        (gate(Rule.NON_INFERIOR, 0.02, "work"), paired(spread(0.95), "work"), Outcome.FAIL),
        (gate(Rule.NON_INFERIOR, 0.02, "work"), paired(spread(1.5), "work"), Outcome.PASS),
        (gate(Rule.NON_INFERIOR, 0.02), paired(spread(1.0)), Outcome.PASS),
        (gate(Rule.NON_INFERIOR, 0.02), paired(spread(1.05)), Outcome.FAIL),
        (gate(Rule.NON_INFERIOR, 0.02), paired(spread(0.5)), Outcome.PASS),
        (gate(Rule.AT_MOST, 75.0), single(spread(60.0)), Outcome.PASS),
        (gate(Rule.AT_MOST, 75.0), single(spread(90.0)), Outcome.FAIL),
        (gate(Rule.AT_MOST, 75.0), single(spread(75.0)), Outcome.INCONCLUSIVE),
        (gate(Rule.AT_LEAST, 0.95), single(spread(0.99)), Outcome.PASS),
        (gate(Rule.AT_LEAST, 0.95), single(spread(0.5)), Outcome.FAIL),
        (gate(Rule.COUNT, 0.0), single([0.0]), Outcome.PASS),
        (gate(Rule.COUNT, 3.0), single([1.0, 2.0, 3.0]), Outcome.PASS),
        (gate(Rule.COUNT, 0.0), single([0.0, 0.0, 1.0, 0.0]), Outcome.FAIL),
    ],
)
def test_every_rule(gate_: Gate, samples: list[Sample], expected: Outcome) -> None:
    found = verdict(gate_, samples)
    assert found.outcome is expected, found.reason
    assert found.reason
    assert "nan" not in found.reason


def test_ratio_verdict_is_told_as_relative_change() -> None:
    found = verdict(REDUCES, paired([0.17] * 8))
    assert found.estimate == pytest.approx(-0.83)
    assert found.low == pytest.approx(-0.83)
    assert found.level == pytest.approx(1 - 2 / 256)
    assert found.n == 8
    assert "-83.0 % (-83.0 … -83.0)" in found.reason
    assert "all 8 perturbed starts gave the same value" in found.remarks


def test_beyond_the_band_is_a_pass_with_a_remark() -> None:
    assert EXCEEDS_BAND in verdict(REDUCES, paired(spread(0.2))).remarks
    inside = verdict(REDUCES, paired(spread(0.90)))
    assert EXCEEDS_BAND not in inside.remarks
    assert any(
        remark.startswith("perturbed starts spread from -10.7 %") for remark in inside.remarks
    )
    failed = verdict(REDUCES, paired(spread(0.99)))
    assert EXCEEDS_BAND not in failed.remarks


def test_a_reduction_of_exactly_the_margin_meets_at_least() -> None:
    for baseline in (1000.0, 190.0, 7.0):
        exact = [Sample(b, 0, "off", "stall", baseline * 20) for b in range(8)]
        exact += [Sample(b, 1, "on", "stall", baseline * 19) for b in range(8)]
        assert verdict(REDUCES, exact, Lane.KVM).outcome is Outcome.PASS
        refused = verdict(REDUCES, exact, Lane.EXACT)
        assert refused.outcome is Outcome.INCONCLUSIVE
        assert "closer to the limit -5.0 % than perturbed starts can resolve" in refused.reason


def test_values_at_the_limit_of_a_level_rule_meet_it() -> None:
    assert verdict(gate(Rule.AT_MOST, 0.0), single([0.0] * 8)).outcome is Outcome.PASS
    assert verdict(gate(Rule.AT_LEAST, 1.0), single([1.0] * 8)).outcome is Outcome.PASS


def test_worse_by_exactly_the_margin_is_not_non_inferior() -> None:
    exact = [Sample(b, 0, "off", "stall", 100.0) for b in range(8)]
    exact += [Sample(b, 1, "on", "stall", 102.0) for b in range(8)]
    assert verdict(gate(Rule.NON_INFERIOR, 0.02), exact, Lane.KVM).outcome is Outcome.FAIL
    assert verdict(gate(Rule.NON_INFERIOR, 0.02), exact).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("n", range(1, 8))
def test_too_few_blocks_decide_nothing(n: int) -> None:
    found = verdict(REDUCES, paired([0.1] * n))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.n == n
    assert f"{n} of the 8 blocks" in found.reason
    assert (found.low is None) == (n == 1)
    assert not settled(found, n)


def test_the_first_look_that_decides_stands() -> None:
    early = verdict(REDUCES, paired(spread(0.9) + [5.0] * 4))
    assert early.outcome is Outcome.PASS
    assert early.n == 8
    assert "decided on the first 8 of 12 blocks (planned look)" in early.remarks


def test_blocks_between_looks_do_not_count() -> None:
    ratios = [*spread(0.95), 0.1, 0.1, 0.1]
    found = verdict(REDUCES, paired(ratios))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.n == 8
    assert verdict(REDUCES, paired([*ratios, 0.1])).n == 12


def test_a_later_look_can_decide() -> None:
    ratios = [0.96, *[0.7 + 0.001 * i for i in range(11)]]
    assert verdict(REDUCES, paired(ratios[:8])).outcome is Outcome.INCONCLUSIVE
    assert verdict(REDUCES, paired(ratios)).outcome is Outcome.PASS


def test_order_of_samples_does_not_matter() -> None:
    samples = paired(spread(0.9))
    assert verdict(REDUCES, samples) == verdict(REDUCES, samples[::-1])


def spoiled(value: float) -> Sample:
    """A sample that slipped past its own check, as a damaged record might."""
    sample = Sample(3, 1, "on", "stall", 1.0)
    object.__setattr__(sample, "value", value)
    return sample


def without(samples: list[Sample], block: int, arm: str) -> list[Sample]:
    return [s for s in samples if (s.block, s.arm) != (block, arm)]


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([], "nothing was measured"),
        (without(paired(spread(0.9)), 3, "on"), "arm on is missing in block 3"),
        (without(paired(spread(0.9)), 3, "off"), "arm off is missing in block 3"),
        (paired(spread(0.9), "work"), "stall of arm off is missing in block 0"),
        ([*without(paired(spread(0.9)), 3, "on"), spoiled(math.nan)], "nan in block 3"),
        ([*without(paired(spread(0.9)), 3, "on"), spoiled(math.inf)], "inf in block 3"),
        (paired([0.9] * 7 + [0.0]), "is 0 in block 7: a ratio needs positive values"),
        (paired([0.9] * 7 + [-0.5]), "is -500 in block 7"),
        ([*paired(spread(0.9)), Sample(2, 0, "on", "stall", 5.0)], "measured twice in block 2"),
    ],
)
def test_broken_measurements_are_errors_and_never_samples(
    samples: list[Sample], words: str
) -> None:
    found = verdict(REDUCES, samples)
    assert found.outcome is Outcome.ERROR
    assert words in found.reason
    assert found.n == 0
    assert found.estimate is None
    assert settled(found, 8)


@pytest.mark.parametrize("rule", [Rule.AT_MOST, Rule.AT_LEAST, Rule.COUNT])
def test_a_hole_is_an_error_for_rules_of_one_arm_too(rule: Rule) -> None:
    samples = [*single([0.0] * 8), Sample(8, 0, "off", "stall", 1.0)]
    found = verdict(gate(rule, 1.0), samples)
    assert found.outcome is Outcome.ERROR
    assert "arm on is missing in block 8" in found.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"experiment": "psi.other"}, "gate belongs to psi.other"),
        ({"metric": "absent"}, "no metric absent"),
        ({"arm": "absent"}, "no arm absent"),
        ({"baseline": None}, "needs a baseline"),
        ({"baseline": "on"}, "needs a baseline"),
        ({"metric": "note"}, "no direction"),
        ({"margin": 1.0}, "outside [0, 1)"),
        ({"margin": math.nan}, "not a finite number"),
    ],
)
def test_declarations_that_cannot_be_decided_are_errors(
    changes: dict[str, object], words: str
) -> None:
    found = verdict(replace(REDUCES, **changes), paired(spread(0.9)))  # type: ignore[arg-type]
    assert found.outcome is Outcome.ERROR
    assert words in found.reason


@pytest.mark.parametrize(("off", "on"), [(1e300, 1e-300), (1e-300, 1e300)])
def test_ratios_beyond_floating_point_are_errors(off: float, on: float) -> None:
    samples = [Sample(b, 0, "off", "stall", off) for b in range(8)]
    samples += [Sample(b, 1, "on", "stall", on) for b in range(8)]
    found = verdict(REDUCES, samples)
    assert found.outcome is Outcome.ERROR
    assert "beyond any measurement" in found.reason


def test_extreme_but_finite_ratios_are_decided() -> None:
    found = verdict(gate(Rule.NON_INFERIOR, 0.02), paired([1e300] * 8, baseline=1e-3))
    assert found.outcome is Outcome.FAIL
    assert found.estimate == pytest.approx(1e300)


ratio_lists = st.lists(st.floats(0.2, 3.0), min_size=8, max_size=14)


@given(ratio_lists, st.floats(0.01, 0.6))
def test_pass_and_fail_mean_what_the_interval_says(ratios: list[float], margin: float) -> None:
    found = verdict(gate(Rule.REDUCES_AT_LEAST, margin), paired(ratios), Lane.KVM)
    assert found.low is not None
    assert found.high is not None
    assert found.estimate is not None
    assert found.low <= found.estimate <= found.high
    if found.outcome is Outcome.PASS:
        assert found.high <= -margin + 1e-9
        assert found.details["p_met"] <= found.details["alpha"]
    elif found.outcome is Outcome.FAIL:
        assert found.low >= -margin - 1e-9
        assert found.details["p_missed"] <= found.details["alpha"]
    elif "single blocks" not in found.reason:  # signs may withhold what the interval says
        assert found.low <= -margin + 1e-9
        assert found.high >= -margin - 1e-9


@given(ratio_lists)
def test_a_harder_margin_never_turns_fail_into_pass(ratios: list[float]) -> None:
    order = [Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]
    ranks = [
        order.index(verdict(gate(Rule.REDUCES_AT_LEAST, m), paired(ratios[:8])).outcome)
        for m in (0.0, 0.1, 0.3, 0.6)
    ]
    assert ranks == sorted(ranks, reverse=True)


def test_limits_in_the_verdicts_terms() -> None:
    assert limit_of(REDUCES, STALL) == -0.05
    assert limit_of(gate(Rule.NON_INFERIOR, 0.02), STALL) == 0.02
    assert limit_of(gate(Rule.NON_INFERIOR, 0.02, "work"), WORK) == -0.02
    assert limit_of(gate(Rule.AT_MOST, 75.0), STALL) == 75.0


def with_outcome(outcome: Outcome) -> Verdict:
    return Verdict("psi.gate", KERNEL, Lane.EXACT, outcome, "because")


def test_settled() -> None:
    assert settled(with_outcome(Outcome.PASS), 8)
    assert settled(with_outcome(Outcome.FAIL), 8)
    assert not settled(with_outcome(Outcome.INCONCLUSIVE), 20)
    assert settled(with_outcome(Outcome.INCONCLUSIVE), 32)
    assert settled(skipped(REDUCES, KERNEL, Lane.KVM, "no PSI"), 0)


def test_skip_and_error_keep_their_reason() -> None:
    assert skipped(REDUCES, KERNEL, Lane.KVM, "no PSI").reason == "no PSI"
    assert broken(REDUCES, KERNEL, Lane.KVM, "panic").outcome is Outcome.ERROR


P, F, INC, S, E = (
    Outcome.PASS,
    Outcome.FAIL,
    Outcome.INCONCLUSIVE,
    Outcome.SKIP,
    Outcome.ERROR,
)


@pytest.mark.parametrize(
    ("outcomes", "lenient", "strict"),
    [
        ([P, P], 0, 0),
        ([P, S], 0, 2),
        ([P, INC], 0, 2),
        ([P, F, INC], 1, 1),
        ([P, F, E], 3, 3),
        ([P, E], 3, 3),
        ([], 3, 3),
        ([S, S], 3, 3),
        ([INC, S], 3, 2),
    ],
)
def test_exit_codes(outcomes: list[Outcome], lenient: int, strict: int) -> None:
    verdicts = [with_outcome(outcome) for outcome in outcomes]
    assert exit_code(verdicts, strict=False) == ExitCode(lenient)
    assert exit_code(iter(verdicts), strict=True) == ExitCode(strict)


def test_a_skip_with_a_gate_in_its_place_is_no_hole() -> None:
    skip = replace(with_outcome(S), stand_in="psi.fallback")
    assert exit_code([with_outcome(P), skip], strict=True) == ExitCode.PASS
    assert exit_code([skip], strict=True) == ExitCode.HARNESS_ERROR
