"""Evidence of runs with known answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from hyperbox.harness.calibration.answers import Checks, KnownCell
from hyperbox.harness.calibration.evidence import Evidence, evidence_of
from hyperbox.harness.calibration.starts import needed
from hyperbox.harness.model import (
    Arm,
    Cell,
    Experiment,
    Gate,
    Lane,
    Metric,
    Outcome,
    Rule,
    Sample,
)
from hyperbox.harness.verdicts.gates import broken, decide, skipped

EXPERIMENT = Experiment(
    id="harness.same",
    suite="harness",
    title="Arms",
    arms=(Arm("a", "A"), Arm("b", "B")),
    metrics=(Metric("work", "Work", "us"), Metric("planted", "Planted", "%", "neither")),
    program=("true",),
    blocks=32,
)
LANE = Lane.KVM


def gate(name: str, rule: Rule = Rule.WITHIN, margin: float = 0.02) -> Gate:
    baseline = None if rule is Rule.AT_MOST else "a"
    return Gate(name, "G", "t", EXPERIMENT.id, "work", rule, margin, "b", baseline)


def samples(changes: Sequence[float], planted: float | None = None) -> list[Sample]:
    found = []
    for block, change in enumerate(changes):
        found.append(Sample(block, 0, "a", "work", 100.0))
        found.append(Sample(block, 1, "b", "work", 100.0 * math.exp(change)))
        if planted is not None:
            found += [Sample(block, n, arm, "planted", planted) for n, arm in enumerate("ab")]
    return found


def evidence(gates: Sequence[Gate], measured: Sequence[Sample]) -> Evidence:
    verdicts = [decide(g, EXPERIMENT, "6.12", LANE, measured) for g in gates]
    cell = KnownCell(Cell("6.12", EXPERIMENT.id, LANE), EXPERIMENT, measured)
    return evidence_of("run", gates, verdicts, [cell])


QUIET = [0.001 * (-1) ** n * (1 + n / 40) for n in range(32)]


def test_quiet_arms_raise_no_alarm() -> None:
    found = evidence([gate("harness.false_alarm.within")], samples(QUIET))
    assert (found.alarms.count, found.alarms.trials) == (0, 1)
    assert (found.above.count, found.below.count, found.above.trials) == (0, 0, 4)
    (one,) = found.same
    assert (one.blocks, one.outcome, one.wrong) == (32, Outcome.PASS, False)
    assert found.kept


def test_arms_that_differ_are_alarms() -> None:
    gates = [gate(f"harness.false_alarm.{n}") for n in range(6)]
    found = evidence(gates, samples([0.05 + d for d in QUIET]))
    assert found.alarms.count == 6
    assert (found.above.count, found.below.count) == (24, 0)
    assert not found.kept


@pytest.mark.parametrize(
    ("rule", "margin", "change", "alarm"),
    [
        (Rule.NON_INFERIOR, 0.02, 0.0, False),
        (Rule.NON_INFERIOR, 0.02, 0.05, True),
        (Rule.REDUCES_AT_LEAST, 0.05, 0.0, False),
        (Rule.REDUCES_AT_LEAST, 0.05, -0.2, True),
        (Rule.REDUCES_AT_LEAST, 0.0, -0.2, True),
        (Rule.REDUCES_AT_LEAST, 0.0, 0.2, True),
    ],
)
def test_what_is_an_alarm_depends_on_the_target(
    rule: Rule, margin: float, change: float, alarm: bool
) -> None:
    found = evidence(
        [gate("harness.false_alarm.x", rule, margin)], samples([change + d for d in QUIET])
    )
    assert found.alarms.count == alarm


def test_identical_arms_claim_nothing() -> None:
    """In the exact lane A/A blocks are equal to the nanosecond."""
    found = evidence([gate("harness.false_alarm.x")], samples([0.0] * 32))
    assert (found.alarms.count, found.above.count, found.below.count) == (0, 0, 0)
    assert found.same[0].outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("measured", "planted", "outcome", "right", "covered"),
    [
        (0.05, 5.0, Outcome.FAIL, True, True),
        (0.0, 5.0, Outcome.PASS, False, False),
        (0.01, 1.0, Outcome.PASS, True, True),
    ],
)
def test_planted_effects(
    measured: float, planted: float, outcome: Outcome, right: bool, covered: bool
) -> None:
    changes = [math.log1p(measured) + d for d in QUIET]
    found = evidence([gate("harness.power.loop")], samples(changes, planted))
    (effect,) = found.planted
    assert (effect.outcome, effect.found, effect.covered) == (outcome, right, covered)
    assert effect.planted == pytest.approx(planted / 100)
    assert found.alarms.trials == 0


def test_a_planted_effect_of_unknown_size_is_found_by_a_pass() -> None:
    found = evidence([gate("harness.power.loop")], samples(QUIET))
    assert (found.planted[0].found, found.planted[0].planted) == (True, None)
    assert found.planted[0].covered is None
    assert found.planted[0].checks == Checks(), "without a truth nothing can be checked"


def test_each_pair_of_arms_is_held_against_every_target_of_its_metric() -> None:
    """Equal arms must not be called faster, nor slower ones equal: a PASS can be wrong too."""
    gates = [
        gate("harness.false_alarm.loop"),
        gate("harness.power.loop", Rule.REDUCES_AT_LEAST, 0.03),
    ]
    found = evidence(gates, samples(QUIET, planted=0.0))
    assert found.same[0].checks == Checks(passes_expected=1, fails_expected=1)
    assert found.planted[0].checks == Checks(passes_expected=1, fails_expected=1)
    assert (found.false_pass.count, found.false_pass.trials) == (0, 2)
    assert (found.false_fail.count, found.false_fail.trials) == (0, 2)
    wrong = evidence(gates, samples([d - 0.1 for d in QUIET], planted=0.0))
    assert wrong.same[0].checks == Checks(1, 1, 1, 1)
    assert (wrong.false_pass.count, wrong.false_fail.count) == (2, 2)


def test_starts_that_a_right_verdict_takes() -> None:
    quick = evidence([gate("harness.power.loop")], samples(QUIET[:8], 0.0)).planted[0]
    assert (quick.starts, quick.found) == (8, True)
    assert quick.right_by_look == (1.0, 1.0, 1.0, 1.0)
    wide = [0.03 * (-1) ** n * (1 + n / 8) for n in range(8)]
    never = evidence([gate("harness.power.loop")], samples(wide, 0.0)).planted[0]
    assert (never.starts, never.found) == (None, False)
    assert max(never.right_by_look) < 0.5
    few = evidence([gate("harness.power.loop")], samples(QUIET[:7], 0.0)).planted[0]
    assert (few.starts, few.right_by_look) == (None, ())


def test_starts_not_yet_measured_are_told_from_those_drawn_again() -> None:
    """7 of 8 starts lie on the good side: the verdict needs more of them, not luck."""
    changes = [0.001, 0.002, 0.0, 0.003, -0.001, 0.002, 0.001, 0.022]
    (effect,) = evidence([gate("harness.power.loop")], samples(changes, 0.0)).planted
    assert effect.outcome is Outcome.INCONCLUSIVE
    assert list(effect.right_by_look) == sorted(effect.right_by_look)
    assert effect.right_by_look[0] == pytest.approx((7 / 8) ** 8, abs=0.05)
    assert effect.starts in (12, 20, 32)


@pytest.mark.parametrize(
    ("shares", "look"),
    [
        ((0.9, 1.0, 1.0, 1.0), 8),
        ((0.1, 0.5, 0.8, 0.9), 20),
        ((0.1, 0.1, 0.1, 0.1), None),
        ((), None),
    ],
)
def test_needed(shares: tuple[float, ...], look: int | None) -> None:
    assert needed(shares) == look


def test_what_has_no_known_answer_is_named() -> None:
    gates = [gate("harness.false_alarm.level", Rule.AT_MOST, 200.0), gate("harness.loss")]
    found = evidence(gates, samples(QUIET))
    assert found.unknown == ("harness.false_alarm.level on 6.12: a level has no known answer",)
    one = gate("harness.power.loop")
    cell = KnownCell(Cell("6.12", EXPERIMENT.id, LANE), EXPERIMENT, ())
    verdicts = [broken(one, "6.12", LANE, "panic"), skipped(one, "6.12", LANE, "no PSI")]
    named = evidence_of("run", [one], verdicts, [cell]).unknown
    assert [text.split(": ", 1)[1] for text in named] == ["ERROR, panic", "SKIP, no PSI"]


def test_real_noise_raises_alarms_at_the_rate_of_one_look() -> None:
    rng = np.random.default_rng(3)
    found = evidence(
        [gate("harness.false_alarm.x")], samples(rng.normal(0, 0.01, 8 * 2000).tolist())
    )
    assert found.above.trials == 2000
    assert found.above.lower <= 1 / 256 <= found.above.upper
    assert found.below.lower <= 1 / 256 <= found.below.upper


def test_verdicts_of_lanes_beside_are_held_against_their_own_samples() -> None:
    judged = gate("harness.false_alarm.within")
    found = {Lane.EXACT: samples(QUIET), Lane.FAST: samples([0.05 + d for d in QUIET])}
    verdicts = [decide(judged, EXPERIMENT, "6.12", lane, shown) for lane, shown in found.items()]
    cells = [
        KnownCell(Cell("6.12", EXPERIMENT.id, lane), EXPERIMENT, shown)
        for lane, shown in found.items()
    ]
    seen = evidence_of("run", [judged], verdicts, cells)
    assert (seen.above.count, seen.above.trials) == (4, 8)
