"""The simulation: its own truth, its determinism, and the promise on a small grid."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import hyperbox.harness.calibration as package
from hyperbox.errors import HarnessError
from hyperbox.harness.calibration import simulation
from hyperbox.harness.calibration.findings import (
    Calibration,
    EffectRates,
    ExactCell,
    Family,
    RuleRates,
)
from hyperbox.harness.calibration.grid import FULL, QUICK, Scenario, Size, scenarios
from hyperbox.harness.calibration.noise import LEVEL_NOISE, PAIR_NOISE, SLOW, START_NOISE, Noise
from hyperbox.harness.calibration.simulation import calibrate, exact_cells, family, row, row_at
from hyperbox.harness.model import Lane, Outcome, Rule, Verdict
from hyperbox.harness.report.calibration import calibration_page, percent
from hyperbox.harness.statistics import sequential
from hyperbox.harness.statistics.design import LOOKS
from hyperbox.harness.statistics.location import critical_value
from hyperbox.harness.statistics.proportions import Rate
from hyperbox.harness.verdicts.gates import decide

TINY = Size(
    at_limit=1500,
    elsewhere=200,
    checked=3,
    diagnosed=10,
    releases=20,
    exact=400,
    effects=(-2.0, 0.0, 2.0),
)
SCHEMA = json.loads((Path(package.__file__).parent / "calibration.schema.json").read_text())


@pytest.mark.parametrize("noise", [*PAIR_NOISE.values(), *LEVEL_NOISE.values()], ids=lambda n: n.id)
def test_noise_has_the_deviation_it_says(noise: Noise) -> None:
    values = noise.draw(np.random.default_rng(1), 4000, 32)
    assert values.shape == (4000, 32)
    assert values.std() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("noise", LEVEL_NOISE.values(), ids=lambda n: n.id)
def test_levels_have_a_median_of_0(noise: Noise) -> None:
    values = noise.draw(np.random.default_rng(2), 4000, 32)
    assert (values < 0).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("noise", PAIR_NOISE.values(), ids=lambda n: n.id)
def test_pairs_have_a_median_of_0(noise: Noise) -> None:
    values = noise.draw(np.random.default_rng(3), 4000, 32)
    assert (values < 0).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", [n for n in PAIR_NOISE if not n.startswith(("unlike", "effect"))])
def test_pairs_lie_symmetrically_whatever_the_machine_does(name: str) -> None:
    """What the signed-rank test needs, and random order gives: both tails are alike."""
    values = PAIR_NOISE[name].draw(np.random.default_rng(3), 20_000, 32)
    for reach in (0.5, 1.0, 2.0):
        assert (values > reach).mean() == pytest.approx((values < -reach).mean(), abs=0.004)


def test_signs_of_pairs_do_not_remember_what_the_machine_remembers() -> None:
    for name in ("autocorrelated", "drifting"):
        signs = np.sign(PAIR_NOISE[name].draw(np.random.default_rng(3), 4000, 32))
        assert (signs[:, 1:] * signs[:, :-1]).mean() == pytest.approx(0.0, abs=0.01)
    lasting = np.sign(PAIR_NOISE["lasting_autocorrelated"].draw(np.random.default_rng(3), 4000, 32))
    assert (lasting[:, 1:] * lasting[:, :-1]).mean() == pytest.approx(0.19, abs=0.02)


@pytest.mark.parametrize("name", ["effect_autocorrelated", "effect_drifting"])
@pytest.mark.parametrize("look", LOOKS)
def test_effects_that_change_have_their_truth_at_every_look(name: str, look: int) -> None:
    """What is left of the mean of each look is the mean of independent noise alone."""
    noise = PAIR_NOISE[name]
    values = noise.draw(np.random.default_rng(3), 20_000, 32)
    own = noise.draw(np.random.default_rng(3), 20_000, 1).std()
    assert values[:, :look].mean(axis=1).std() < own / math.sqrt(look)
    short = noise.draw(np.random.default_rng(3), 5, 11)
    assert short.shape == (5, 11)


def test_every_rule_that_can_err_is_on_the_grid() -> None:
    assert {scenario.rule for scenario in scenarios()} == set(Rule) - {Rule.COUNT}
    for size in (QUICK, FULL):
        assert 0.0 in size.effects
        assert all(0.0 in scenario.effects(size) for scenario in scenarios())


def test_equivalence_is_not_asked_about_its_far_side() -> None:
    narrow = Scenario(Rule.WITHIN, 0.0005, PAIR_NOISE["normal"])
    assert max(narrow.effects(FULL)) == 0.0


def test_same_seed_same_rows() -> None:
    scenario = Scenario(Rule.AT_MOST, 100.0, LEVEL_NOISE["skewed"])
    assert row(scenario, TINY, 5) == row(scenario, TINY, 5)
    assert row(scenario, TINY, 5) != row(scenario, TINY, 6)


@pytest.mark.parametrize("place", range(0, len(tuple(scenarios())), 7))
def test_promised_rows_keep_the_promise(place: int) -> None:
    """A lower bound above 2.5 % on 1500 samples would be a broken rule, not bad luck."""
    found, checked = row_at(place, TINY, 1)
    assert checked == 2 * TINY.checked
    if found.promised:
        assert found.false_pass.lower <= 0.025
        assert found.false_fail.lower <= 0.025
    for cell in found.cells:
        if abs(cell.effect) == 2.0:
            assert cell.decided(3).rate > 0.5


@pytest.mark.parametrize("name", ["unlike_bimodal", "unlike_skewed"])
def test_one_arm_of_another_shape_keeps_the_promise(name: str) -> None:
    """Signed ranks alone would err in 5 and 9 %: signs must agree."""
    found, _ = row(Scenario(Rule.NON_INFERIOR, 0.02, PAIR_NOISE[name]), TINY, 1)
    assert found.promised
    assert max(found.false_pass.upper, found.false_fail.upper) < 0.03


@pytest.mark.parametrize("lane", [Lane.EXACT, Lane.KVM])
def test_two_modes_do_not_matter_in_any_lane(lane: Lane) -> None:
    found, _ = row(Scenario(Rule.NON_INFERIOR, 0.02, START_NOISE["bimodal"], lane), TINY, 1)
    assert max(found.false_pass.upper, found.false_fail.upper) < 0.03


@pytest.mark.parametrize("what", SLOW)
def test_slow_machines_cancel_and_slow_effects_do_not(what: str) -> None:
    """The same noise of the machine, of the effect for the blocks measured, and for all time."""
    rows = [row(Scenario(Rule.NON_INFERIOR, 0.02, PAIR_NOISE[n]), TINY, 1)[0] for n in SLOW[what]]
    machine, measured, lasting = (r.wrong_by(3) for r in rows)
    assert machine.upper < 0.03
    assert measured.upper < 0.025
    assert lasting.lower > 0.025
    assert [r.promised for r in rows] == [True, True, False]


def test_the_page_sets_slow_machines_beside_slow_effects() -> None:
    noises = [PAIR_NOISE[name] for names in SLOW.values() for name in names]
    rows = [row(Scenario(Rule.NON_INFERIOR, 0.02, noise), TINY, 1) for noise in noises]
    page = calibration_page(calibrate(rows, TINY, 1))
    for what, names in SLOW.items():
        line = re.search(f'<tr><th scope="row">{re.escape(what)}</th>(.*?)</tr>', page)
        assert line, what
        shown = re.findall(r'<td class="num">([^<]*)</td>', line[1])
        judged = {found.noise: found for found, _ in rows}
        assert shown == [percent(judged[name].wrong_by(-1).rate) for name in names]
    assert "of the effect, for all time" in page


def test_the_exact_lane_finds_half_a_percent_with_eight_starts() -> None:
    cells = {(cell.spread, cell.planted): cell for cell in exact_cells(TINY, 1)}
    for spread in (0.0005, 0.001):
        assert cells[spread, 0.005].right.rate > 0.95
        assert cells[spread, 0.005].wrong.count == 0
    assert cells[0.02, 0.005].right.rate < 0.1, "below the spread nothing is claimed"


def test_releases() -> None:
    found = family(TINY, 1)
    assert found.uncorrected.rate > 0.2
    assert found.corrected.count <= 2


@pytest.fixture(scope="module")
def small() -> Calibration:
    chosen = [row_at(place, TINY, 1) for place in (0, 12, 50)]
    return calibrate(chosen, TINY, 1)


def test_the_document_is_what_its_schema_says(small: Calibration) -> None:
    document = json.loads(json.dumps(small.document(), allow_nan=False))
    jsonschema.validate(document, SCHEMA)
    assert document["checked"] == 3 * 2 * TINY.checked


def broken_row(false_passes: int, *, promised: bool) -> RuleRates:
    cell = EffectRates(0.0, 1000, (0, 0, 0, false_passes), (0, 0, 0, 0))
    return RuleRates("at_most", 100.0, Lane.KVM, "normal", "normal", promised, (cell,), Rate(0, 10))


def test_a_broken_promise_is_named() -> None:
    exact = (ExactCell(0.001, 0.0, 0.002, 0, 100, 1000),)
    kept = Family(40, Rate(0, 1000), Rate(500, 1000))
    rows = (broken_row(60, promised=True), broken_row(60, promised=False))
    found = Calibration("0", 1, rows, exact, kept, 0)
    assert found.broken_promises == (
        "at_most under normal noise",
        "exact lane, 0.00% planted under a spread of 0.10%",
    )
    assert Calibration("0", 1, (broken_row(5, promised=True),), (), kept, 0).broken_promises == ()
    exact_row = replace(broken_row(60, promised=True), lane=Lane.EXACT)
    assert Calibration("0", 1, (exact_row,), (), kept, 0).broken_promises == (
        "at_most under normal noise in the exact lane",
    )
    lost = Family(40, Rate(40, 1000), Rate(500, 1000))
    assert Calibration("0", 1, (), (), lost, 0).broken_promises == ("a release of 40 verdicts",)


def test_a_rule_that_errs_too_often_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the full 2.5 %, as if nobody had looked before."""
    monkeypatch.setattr(
        sequential, "critical_value", lambda n, _alpha, kind: critical_value(n, 0.025, kind)
    )
    levels, _ = row(Scenario(Rule.AT_MOST, 100.0, LEVEL_NOISE["normal"]), TINY, 1)
    assert max(levels.false_pass.lower, levels.false_fail.lower) > 0.03
    pairs, _ = row(Scenario(Rule.NON_INFERIOR, 0.02, PAIR_NOISE["normal"]), TINY, 1)
    for found in (levels, pairs):
        assert found.promised
        assert not found.kept


def test_deciding_differently_one_at_a_time_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def contrary(*arguments: Any) -> Verdict:
        return replace(decide(*arguments), outcome=Outcome.PASS, n=8)

    monkeypatch.setattr(simulation, "decide", contrary)
    with pytest.raises(HarnessError, match="one sample is PASS at 8 blocks alone and INCONCLUSIVE"):
        row(Scenario(Rule.AT_LEAST, 100.0, LEVEL_NOISE["normal"]), TINY, 1)
