"""Comparisons: exact statistics, the right side called better, and refusals in one line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib import resources

import pytest
from jsonschema import Draft202012Validator, ValidationError

from hyperbox.errors import ConfigError
from hyperbox.harness.model import Lane
from hyperbox.harness.report import comparison
from hyperbox.harness.report.comparison import compare
from hyperbox.harness.report.comparison_data import SideFinding, comparison_document
from hyperbox.harness.report.data import RunData
from hyperbox.harness.statistics.multiplicity import holm


def test_kernels_of_one_run(run: RunData) -> None:
    """The planted levels are those of conftest.EFFECTS: 5.10's tuned arm is far better."""
    found = compare(run, kernels=["5.10", "6.12"])
    rows = {(row.arm, row.metric.id): row for row in found.rows}
    tuned = rows["on", "some_us"]
    assert tuned.finding is SideFinding.FIRST_BETTER
    assert tuned.change[0] == pytest.approx(0.89 / 0.17 - 1, rel=0.02)
    assert rows["on", "work_rate"].finding is SideFinding.FIRST_BETTER  # there higher is better
    assert rows["off", "some_us"].finding is SideFinding.NOT_SURE  # nothing planted
    assert rows["monitor", "mismatches"].finding is SideFinding.SAME
    assert ("on", "refaults") not in rows  # no direction of it is better
    assert not any(row.shift.paired for row in found.rows)
    assert "5.10 is better at" in found.sentence


def test_p_values_are_paid_for(run: RunData) -> None:
    """At least by the number of cells, at most by the number of rows."""
    found = compare(run, kernels=["6.12", "7.3"])
    ordered = sorted(found.rows, key=lambda row: row.shift.p)
    adjusted = [row.p for row in ordered]
    assert adjusted == sorted(adjusted)
    smallest = ordered[0].shift.p
    assert smallest < adjusted[0] <= min(1.0, smallest * len(ordered))
    assert all(row.p >= row.shift.p for row in ordered)


def test_the_default_number_of_blocks_can_tell_two_runs_of_one_seed_apart(run: RunData) -> None:
    """Eight pairs give p = 0.008 at best: corrected one by one, 20 rows would say nothing."""
    found = compare(cut(run, 8), scaled(cut(run, 8), 1.01))
    sure = [row for row in found.rows if row.experiment == "psi.swap_storm"]
    assert len(sure) == 24
    assert {row.finding for row in sure} == {SideFinding.FIRST_BETTER, SideFinding.SECOND_BETTER}
    assert all(row.shift.paired and row.shift.n == (8, 8) for row in sure)


def test_large_comparisons_pay_row_by_row(run: RunData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_MOST_TOGETHER", 3)
    rows = compare(with_few_readings(run), kernels=["5.10", "6.12"]).rows
    able = [row for row in rows if row.able]
    assert 0 < len(able) < len(rows)
    assert [row.p for row in able] == pytest.approx(holm([row.shift.p for row in able]))
    assert all(row.p == 1.0 for row in rows if not row.able)


def scaled(run: RunData, factor: float) -> RunData:
    cells = tuple(
        replace(c, samples=tuple(replace(s, value=s.value * factor) for s in c.samples))
        for c in run.cells
    )
    return replace(run, run_id="later", cells=cells)


def test_runs_of_one_seed_are_compared_in_pairs(run: RunData) -> None:
    found = compare(run, scaled(run, 1.002))
    assert {row.shift.paired for row in found.rows} == {True}
    sure = [row for row in found.rows if row.metric.id == "some_us"]
    assert {row.finding for row in sure} == {SideFinding.FIRST_BETTER}
    assert all(row.change[0] == pytest.approx(0.002) for row in sure)
    other = compare(run, replace(scaled(run, 1.002), seed=2))
    assert {row.shift.paired for row in other.rows} == {False}


def test_a_run_against_itself_finds_nothing(run: RunData) -> None:
    found = compare(run, replace(run, run_id="again"))
    assert {row.finding for row in found.rows} == {SideFinding.SAME}
    assert "5.10 is better" not in found.sentence


def test_sides_of_one_name_are_both_in_the_sentence(run: RunData) -> None:
    found = compare(run, scaled(replace(run, run_id="later"), 2.0))
    shown = replace(found, first="run", second="run").sentence
    assert shown.count("run is better at") == 2


def test_the_sentence_counts_in_words_that_fit(run: RunData) -> None:
    found = compare(run, kernels=["5.10", "6.12"])
    one = replace(found, rows=found.rows[:1])
    assert one.sentence.startswith("Of 1 metric neither 5.10 nor 6.12 is surely better at any; ")
    assert one.sentence.endswith("; 1 is identical.")
    sides = found.sentence.split(";")[0]
    assert sides.startswith(f"Of {len(found.rows)} metrics 5.10 is better at "), "more wins first"


def cut(run: RunData, blocks: int) -> RunData:
    cells = tuple(
        replace(c, samples=tuple(s for s in c.samples if s.block < blocks)) for c in run.cells
    )
    return replace(run, cells=cells)


def with_few_readings(run: RunData) -> RunData:
    """Three blocks of the readings, twelve of the storm."""
    cells = zip(cut(run, 3).cells, run.cells, strict=True)
    chosen = (few if few.experiment.id == "psi.readings" else whole for few, whole in cells)
    return replace(run, cells=tuple(chosen))


def altered(run: RunData, block: int, metric: str, value: float) -> RunData:
    cells = tuple(
        replace(
            c,
            samples=tuple(
                replace(s, value=value) if (s.block, s.metric) == (block, metric) else s
                for s in c.samples
            ),
        )
        for c in run.cells
    )
    return replace(run, run_id="later", cells=cells)


@pytest.mark.parametrize("seed", [1, 2], ids=["paired", "unpaired"])
def test_identical_is_what_no_block_contradicts(run: RunData, seed: int) -> None:
    """One wrong reading in eight leaves estimate and interval at zero; it is not "identical"."""
    odd = altered(replace(run, seed=seed), 3, "mismatches", 2.0)
    rows = [row for row in compare(run, odd).rows if row.metric.id == "mismatches"]
    assert [row.shift.paired for row in rows] == [seed == 1] * 3
    assert {row.finding for row in rows} == {SideFinding.NOT_SURE}
    assert all("identical" not in row.change_text for row in rows)


def test_the_exact_lane_claims_nothing_below_what_it_tells(run: RunData) -> None:
    found = compare(run, scaled(run, 1.0008))
    some = [row for row in found.rows if row.metric.id == "some_us"]
    assert {(row.p <= 0.05, row.finding) for row in some} == {(True, SideFinding.NOT_SURE)}
    assert any("by less than 0.1 % no side is called better" in text for text in found.remarks)
    host = tuple(replace(c, cell=replace(c.cell, lane=Lane.KVM)) for c in run.cells)
    there = replace(run, cells=host)
    shown = compare(there, scaled(there, 1.0008))
    found_there = {row.finding for row in shown.rows if row.metric.id == "some_us"}
    assert found_there == {SideFinding.FIRST_BETTER}
    assert any(text.startswith("host time: ") for text in shown.remarks)


def test_too_few_blocks_are_told_and_cost_the_others_nothing(run: RunData) -> None:
    """Three and three give p = 0.1 at best, whatever was measured; they feign no interval."""
    few = compare(cut(run, 3), kernels=["5.10", "6.12"])
    assert {row.finding for row in few.rows} == {SideFinding.TOO_FEW, SideFinding.SAME}
    assert all("(" not in row.change_text for row in few.rows)
    assert "without enough blocks to decide" in few.sentence
    mixed = compare(with_few_readings(run), kernels=["5.10", "6.12"]).rows
    sure = {(row.arm, row.metric.id): row.p for row in mixed if row.p < 0.5}
    assert len(sure) == 4
    storm = replace(run, cells=tuple(c for c in run.cells if c.experiment.id == "psi.swap_storm"))
    alone = compare(storm, kernels=["5.10", "6.12"]).rows
    assert sure == pytest.approx({(r.arm, r.metric.id): r.p for r in alone if r.p < 0.5})


def test_groups_hold_every_row_once_and_the_sure_ones_first(run: RunData) -> None:
    found = compare(run, kernels=["5.10", "6.12"])
    grouped = [row for _, rows in found.groups for row in rows]
    assert sorted(map(id, grouped)) == sorted(map(id, found.rows))
    findings = [finding for finding, _ in found.groups]
    assert findings[0] is SideFinding.FIRST_BETTER
    assert findings[-1] is SideFinding.SAME
    assert found.heading(findings[0]) == "5.10 is better"


def test_the_better_side_is_drawn_on_its_own_side(run: RunData) -> None:
    """Lower is better for pressure, higher for work: both lie left where the first is better."""
    for row in compare(run, kernels=["5.10", "6.12"]).rows:
        estimate, low, high = row.advantage
        assert low <= estimate <= high
        if row.finding is SideFinding.FIRST_BETTER:
            assert high < 0, row.metric.id


def test_a_kernel_of_each_run(run: RunData) -> None:
    found = compare(run, scaled(run, 2.0), ["5.10", "7.3"])
    assert (found.first, found.second) == (f"5.10 of {run.run_id}", "7.3 of later")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"lane": Lane.KVM}, "other lanes"),
        ({"kernel": "6.1"}, "no kernel in common"),
        ({"experiment": "x"}, "no experiment in common"),
    ],
)
def test_incomparable_runs_are_refused(run: RunData, change: dict[str, object], text: str) -> None:
    cells = tuple(replace(c, cell=replace(c.cell, **change)) for c in run.cells)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=text):
        compare(run, replace(run, run_id="other", cells=cells))


def test_other_experiments_of_one_name_are_refused(run: RunData) -> None:
    cells = tuple(
        replace(c, experiment=replace(c.experiment, program=("other",))) for c in run.cells
    )
    with pytest.raises(ConfigError, match="is not the same experiment on both sides"):
        compare(run, replace(run, run_id="other", cells=cells))


def test_damage_is_told_beside_what_is_left(run: RunData) -> None:
    broken = replace(run, run_id="broken", problems=("record.json is not JSON",))
    assert compare(run, broken).remarks[0] == "damage: record.json is not JSON"
    twice = compare(broken, kernels=["5.10", "6.12"]).remarks
    assert [text for text in twice if text.startswith("damage: ")] == [twice[0]]


def test_bad_questions_are_refused(run: RunData, empty_run: RunData) -> None:
    with pytest.raises(ConfigError, match="one run needs two kernels"):
        compare(run)
    with pytest.raises(ConfigError, match=r"did not measure kernel 9\.9"):
        compare(run, kernels=["5.10", "9.9"])
    with pytest.raises(ConfigError, match="a run without cells"):
        compare(run, replace(empty_run, run_id="empty"))
    with pytest.raises(ConfigError, match=r"kernel 5\.10 of a run is itself"):
        compare(run, kernels=["5.10", "5.10"])
    with pytest.raises(ConfigError, match="one run needs two kernels"):
        compare(run, replace(run))


def test_values_beyond_measurement_are_told_not_computed(run: RunData) -> None:
    huge = altered(altered(run, 0, "cpu_percent", -1.7e308), 1, "cpu_percent", 1.7e308)
    found = compare(run, huge)
    assert "cpu_percent" not in {row.metric.id for row in found.rows}
    assert "cpu_percent (monitor) of psi.readings is beyond any measurement" in found.remarks


def test_ratios_beyond_any_float_are_still_told(run: RunData) -> None:
    row = next(row for row in compare(run, scaled(run, 1.5)).rows if row.ratio and row.able)
    wild = replace(row, shift=replace(row.shift, low=-800.0, high=800.0))
    assert all(map(math.isfinite, wild.change))
    assert wild.change_text


def test_what_blocks_cannot_pay_for_is_told(run: RunData) -> None:
    cells = tuple(
        replace(c, cell=replace(c.cell, kernel=f"{c.cell.kernel}.{i}"))
        for i in range(4)
        for c in cut(run, 6).cells
    )
    many = replace(run, cells=cells)
    shown = compare(many, scaled(many, 1.5))
    assert any("so few blocks can make nothing sure in 24 cells" in text for text in shown.remarks)
    few = compare(cut(run, 8), scaled(cut(run, 8), 1.5))
    assert not any("so few blocks" in text for text in few.remarks)


def test_document_follows_its_published_schema(run: RunData) -> None:
    found = compare(run, kernels=["6.12", "7.3"])
    shown = json.loads(json.dumps(comparison_document(found), allow_nan=False))
    assert len(shown["rows"]) == len(found.rows)
    package = resources.files("hyperbox.harness.report")
    schema = json.loads(package.joinpath("schema/comparison.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(shown)
    with pytest.raises(ValidationError):
        Draft202012Validator(schema).validate({**shown, "rows": [{**shown["rows"][0], "p": 2}]})
    findings = schema["properties"]["rows"]["items"]["properties"]["finding"]["enum"]
    assert set(findings) == set(SideFinding)
    assert {row["finding"] for row in shown["rows"]} >= {"first better", "not sure"}


def test_sets_of_blocks_are_compared_at_one_size(run: RunData) -> None:
    """Eight blocks that spread widely against 32 that do not would raise 22 % false claims."""
    longer = replace(run, run_id="longer", seed=2)
    found = compare(cut(run, 8), longer)
    assert {row.shift.n for row in found.rows} == {(8, 8)}
    assert any("only as many as the other has are compared" in text for text in found.remarks)
    cells = tuple(replace(c, samples=tuple(reversed(c.samples))) for c in longer.cells)
    assert compare(cut(run, 8), replace(longer, cells=cells)).rows == found.rows
    whole = compare(run, replace(run, run_id="longer", seed=2))
    assert not any("only as many" in text for text in whole.remarks)
    short = {row.metric.id: row for row in found.rows if row.kernel == "6.12" and row.arm == "off"}
    first = compare(cut(run, 8), replace(cut(run, 8), run_id="longer", seed=2))
    for row in first.rows:
        if row.kernel == "6.12" and row.arm == "off":
            assert row == short[row.metric.id], "medians are of the blocks compared"
