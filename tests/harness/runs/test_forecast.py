"""What is expected follows from earlier costs; the longest begin first; what is left shrinks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.harness.model import Arm, Cell, Experiment, Lane, Metric
from hyperbox.harness.runs.costs import Cost
from hyperbox.harness.runs.events import (
    AttemptRecorded,
    BlockMeasured,
    CellResumed,
    CellStarted,
    SetupStep,
)
from hyperbox.harness.runs.forecast import (
    Expectation,
    Forecast,
    Left,
    expect,
    longest_first,
    makespan,
    spell,
)
from hyperbox.harness.runs.plan import Plan


def _experiment(name: str, blocks: int = 8, timeout: float = 300.0) -> Experiment:
    return Experiment(
        id=name,
        suite="demo",
        title=name,
        arms=(Arm("on", "on"),),
        metrics=(Metric("time", "Time", "us"),),
        program=("true",),
        blocks=blocks,
        timeout_s=timeout,
    )


_PLAN = Plan(
    ("6.1", "7.3"),
    Lane.EXACT,
    (_experiment("short"), _experiment("long"), _experiment("huge", timeout=900.0)),
    (),
    seed=1,
    beside=(Lane.FAST,),
)
_COST = Cost(8, False, seconds=10.0, cpu_seconds=9.0, guest_seconds=5.0, ready_s=20.0)


def _cell(experiment: str, kernel: str = "7.3", lane: Lane = Lane.EXACT) -> Cell:
    return Cell(kernel, experiment, lane)


def test_a_cell_is_expected_to_cost_what_it_did() -> None:
    expected = expect(_PLAN, {_cell("long"): _COST})
    assert expected[_cell("long")] == Expectation(_cell("long"), 8, 100.0, 72.0, "its last run")
    other = expected[_cell("long", "6.1")]
    assert (other.seconds, other.basis) == (100.0, "other kernels")
    assert expected[_cell("short")] == Expectation(_cell("short"), 8)
    assert expected[_cell("long", lane=Lane.FAST)] == Expectation(_cell("long", lane=Lane.FAST), 8)
    assert list(expected) == list(_PLAN.cells())


@pytest.mark.parametrize(
    ("cost", "declared", "blocks"),
    [
        (_COST, 8, 8),
        (_COST, 32, 32),
        (replace(_COST, settled=True), 32, 8),
        (replace(_COST, settled=True), 4, 4),
        (replace(_COST, blocks=2), 8, 8),
    ],
)
def test_blocks_that_settled_it_settle_it_again(cost: Cost, declared: int, blocks: int) -> None:
    plan = replace(_PLAN, experiments=(_experiment("long", declared),))
    found = expect(plan, {_cell("long"): cost})[_cell("long")]
    assert (found.blocks, found.seconds) == (blocks, 20.0 + blocks * 10.0)


def test_the_longest_begin_first_in_the_deciding_lane_first() -> None:
    costs = {
        _cell("short"): _COST,
        _cell("long"): replace(_COST, seconds=50.0),
        _cell("long", "6.1"): replace(_COST, seconds=40.0),
        _cell("huge", lane=Lane.FAST): replace(_COST, seconds=1000.0),
    }
    order = longest_first(_PLAN, _PLAN.cells(), expect(_PLAN, costs))
    assert order[:6] == (
        *(_cell("huge", kernel) for kernel in ("6.1", "7.3")),  # unknown: it may be anything
        *(_cell("long", kernel) for kernel in ("7.3", "6.1")),
        *(_cell("short", kernel) for kernel in ("6.1", "7.3")),
    )
    assert {cell.lane for cell in order[6:]} == {Lane.FAST}
    assert sorted(cell.key for cell in order) == sorted(cell.key for cell in _PLAN.cells())


def test_among_unknown_cells_the_highest_limit_is_first() -> None:
    order = longest_first(_PLAN, _PLAN.cells(), expect(_PLAN, {}))
    assert [cell.experiment for cell in order[:6:2]] == ["huge", "short", "long"]


_DURATIONS = st.lists(st.floats(0, 1e5), max_size=20)


@given(_DURATIONS, st.integers(1, 5))
def test_a_makespan_lies_within_its_bounds(durations: list[float], jobs: int) -> None:
    found = makespan((), sorted(durations, reverse=True), jobs)
    fair, longest = sum(durations) / jobs, max(durations, default=0.0)
    slack = 1e-6 * (1 + fair)
    assert found >= max(fair, longest) - slack
    assert found <= fair + longest * (1 - 1 / jobs) + slack  # Graham: nobody is idle before
    assert makespan((), durations, 1) == pytest.approx(sum(durations))


def test_free_jobs_take_what_waits() -> None:
    assert makespan([100.0], [30.0, 30.0, 30.0], 2) == 100.0
    assert makespan([10.0, 20.0], [30.0], 2) == 40.0
    assert makespan([], [], 4) == 0.0
    assert makespan([5.0, 6.0, 7.0], [], 2) == 7.0  # more run than should


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (719, "12 min"),
        (5400, "1 h 30 min"),
        (7200, "2 h"),
        (7160, "1 h 59 min"),
    ],
)
def test_durations_are_spelt_as_people_do(seconds: float, words: str) -> None:
    assert spell(seconds) == words


def test_what_is_left_says_how_sure_it_is() -> None:
    assert str(Left(720, 0)) == "about 12 min"
    assert str(Left(720, 2)) == "more than 12 min"
    assert str(Left(0, 2)) == ""


def _forecast(jobs: int = 1) -> Forecast:
    known = [Expectation(_cell("long", k), 8, 100.0, 72.0, "its last run") for k in ("6.1", "7.3")]
    return Forecast([*known, Expectation(_cell("short"), 8)], jobs)


def test_a_forecast_follows_the_run() -> None:
    forecast, first = _forecast(), _cell("long", "6.1")
    assert forecast.left(0.0) == Left(200.0, 1)
    forecast.note(SetupStep("booting", 0.5), 0.0)
    forecast.note(CellStarted(first, 1, 8), 0.0)
    assert forecast.left(30.0) == Left(170.0, 1)
    forecast.note(BlockMeasured(first, 2, 8), 60.0)  # 30 s each: slower than thought
    assert forecast.left(60.0) == Left(180.0 + 100.0, 1)
    assert forecast.left(70.0) == Left(170.0 + 100.0, 1)
    assert forecast.left(9999.0) == Left(100.0, 1)  # never below nothing
    forecast.note(AttemptRecorded(first, "failed", "lost", final=False), 240.0)
    forecast.note(CellStarted(first, 2, 8), 240.0)
    assert forecast.left(240.0) == Left(200.0, 1)
    forecast.note(BlockMeasured(first, 8, 8), 320.0)
    forecast.note(AttemptRecorded(first, "measured", "", final=True), 320.0)
    assert forecast.left(320.0) == Left(100.0, 1)
    forecast.note(CellResumed(_cell("long")), 320.0)
    assert forecast.left(320.0) == Left(0.0, 1)


def test_an_unknown_cell_is_known_by_its_pace_and_then_by_its_kin() -> None:
    cells = [_cell("short", kernel) for kernel in ("6.1", "7.3")]
    forecast = Forecast([Expectation(cell, 4) for cell in cells], 1)
    forecast.note(CellStarted(cells[0], 1, 4), 0.0)
    assert forecast.left(5.0) == Left(0.0, 2)
    forecast.note(BlockMeasured(cells[0], 1, 4), 10.0)
    assert forecast.left(10.0) == Left(30.0, 1)
    forecast.note(AttemptRecorded(cells[0], "measured", "", final=True), 40.0)
    assert forecast.left(40.0) == Left(40.0, 0)


def test_cells_that_nobody_expected_are_no_harm() -> None:
    forecast = _forecast(2)
    stray = _cell("stray")
    forecast.note(CellStarted(stray, 1, 8), 0.0)
    forecast.note(BlockMeasured(stray, 1, 8), 1.0)
    assert forecast.left(1.0).unknown == 2
    forecast.note(AttemptRecorded(stray, "measured", "", final=True), 2.0)
    assert forecast.left(2.0) == Left(100.0, 1)
