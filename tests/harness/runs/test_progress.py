"""What a run's user is shown while it runs."""

from __future__ import annotations

import io
import re

import pytest

from hyperbox.console import TerminalConsole
from hyperbox.harness.model import Arm, Experiment, Lane, Metric
from hyperbox.harness.runs.events import AttemptRecorded, BlockMeasured, CellResumed, CellStarted
from hyperbox.harness.runs.forecast import Expectation, Forecast
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.progress import ProgressDisplay

_EXPERIMENT = Experiment(
    id="demo.load",
    suite="demo",
    title="Demo",
    arms=(Arm("on", "on"),),
    metrics=(Metric("time", "Time", "us"),),
    program=("true",),
    blocks=4,
)
_PLAN = Plan(("6.1", "7.3"), Lane.EXACT, (_EXPERIMENT,), (), seed=1)
_FIRST, _SECOND = _PLAN.cells()


def _display(*, terminal: bool) -> tuple[ProgressDisplay, io.StringIO]:
    said = io.StringIO()
    console = TerminalConsole(file=said, force_terminal=terminal, width=120, color_system=None)
    return ProgressDisplay(console), said


def _forecast(seconds: float | None) -> Forecast:
    basis = "" if seconds is None else "its last run"
    return Forecast([Expectation(cell, 4, seconds, 1.0, basis) for cell in _PLAN.cells()], 1)


def _lines(forecast: Forecast | None, state: str = "measured") -> list[str]:
    display, said = _display(terminal=False)
    with display:
        display.expect(_PLAN, forecast)
        for cell in (_FIRST, _SECOND):
            display(CellStarted(cell, 1, 4))
            display(BlockMeasured(cell, 1, 4))
            display(AttemptRecorded(cell, state, "", final=True))
    return said.getvalue().splitlines()


def test_lines_tell_what_is_left_and_nothing_at_the_end() -> None:
    assert _lines(_forecast(720.0)) == [
        "measuring demo.load on 6.1",
        "demo.load on 6.1: measured; about 12 min left",
        "measuring demo.load on 7.3",
        "demo.load on 7.3: measured",
    ]


@pytest.mark.parametrize("forecast", [None, Forecast([], 1)])
def test_lines_tell_no_time_where_none_is_known(forecast: Forecast | None) -> None:
    assert [line for line in _lines(forecast) if "left" in line] == []


def test_an_attempt_that_is_tried_again_tells_no_time() -> None:
    display, said = _display(terminal=False)
    with display:
        display.expect(_PLAN, _forecast(720.0))
        display(CellResumed(_SECOND))
        display(CellStarted(_FIRST, 1, 4))
        display(AttemptRecorded(_FIRST, "failed", "the guest crashed", final=False))
        display(CellStarted(_FIRST, 2, 4))
        display(AttemptRecorded(_FIRST, "measured", "", final=True))
    assert said.getvalue().splitlines() == [
        "demo.load on 7.3: on record already",
        "measuring demo.load on 6.1",
        "demo.load on 6.1: failed: the guest crashed; trying again",
        "measuring demo.load on 6.1, attempt 2",
        "demo.load on 6.1: measured",
    ]


def test_bars_show_the_forecast() -> None:
    display, said = _display(terminal=True)
    with display:
        display.expect(_PLAN, _forecast(720.0))
        display(CellStarted(_FIRST, 1, 4))
    assert "about 24 min" in said.getvalue()
    display, said = _display(terminal=True)
    with display:
        display.expect(_PLAN)
        display(CellStarted(_FIRST, 1, 4))
    assert "about" not in said.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_guest_said_moves_no_cursor(terminal: bool) -> None:
    display, said = _display(terminal=terminal)
    with display:
        display.expect(_PLAN)
        display.step("\x1b[3Jfetching [bold]this[/x]", 0.5)
        display(CellStarted(_FIRST, 1, 4))
        display(AttemptRecorded(_FIRST, "failed", "BUG: \x1b]0;owned\x07 \x9b2J", final=True))
    text = said.getvalue()
    assert terminal or "fetching [bold]this[/x]" in text
    assert "owned" in text
    assert not re.search("\x1b\\[3J|\x1b\\]|\x07|\x9b", text)
