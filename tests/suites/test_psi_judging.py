"""The PSI suite's judgement on planted truths and faults: averages, Senpai, history, endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.linux.pressure import Line, Pressure, Resource
from hyperbox.memory.psi import HISTORY, PressureSample
from suites.daemon import HttpAnswer
from suites.observing import highest_average
from suites.psi.endpoint import EndpointJudge
from suites.psi.history import Kept, judge
from suites.psi.reference import Moment
from suites.psi.senpai import SenpaiSettings, State, step

SECOND = 1_000_000_000
KEYS = (("cpu", "some"), ("memory", "some"), ("memory", "full"))


# The highest 10 s average


def test_a_burst_is_seen_and_a_quiet_hour_does_not_hide_it() -> None:
    moments = [(second * 1_000_000, 0) for second in range(100)]
    moments += [((100 + s) * 1_000_000, s * 800_000) for s in range(11)]
    moments += [((111 + s) * 1_000_000, 8_000_000) for s in range(100)]
    assert highest_average(moments) == pytest.approx(80.0)


def test_a_short_recording_counts_as_a_whole() -> None:
    assert highest_average([(0, 0), (1_000_000, 900_000), (4_000_000, 1_000_000)]) == 25.0
    with pytest.raises(ValueError, match="two readings"):
        highest_average([(0, 0)])


@given(st.lists(st.integers(0, 250_000), min_size=41, max_size=120))
def test_it_is_between_the_mean_and_the_worst_moment(stalls: list[int]) -> None:
    total, moments = 0, [(0, 0)]
    for number, stall in enumerate(stalls, start=1):
        total += stall
        moments.append((number * 250_000, total))
    highest = highest_average(moments)
    ten = [(moments[i + 40][1] - moments[i][1]) / 1e5 for i in range(len(moments) - 40)]
    assert highest == pytest.approx(max(ten))


# Senpai's loop


def test_senpai_lowers_by_a_hundredth_after_six_quiet_seconds() -> None:
    state, changes = State(), []
    for _ in range(14):
        state, change = step(state, 0, SenpaiSettings())
        changes.append(change)
    assert [second for second, change in enumerate(changes) if change] == [6, 12]
    assert changes[6] == -0.01


def test_senpai_gives_way_at_once_and_by_the_square() -> None:
    state, change = step(State(), 100_000, SenpaiSettings())
    assert change == pytest.approx((10 / 20) ** 2)
    assert state == State(0, 5)
    assert step(State(), 10**9, SenpaiSettings())[1] == 1.0
    assert step(State(grace_s=3), 10_000, SenpaiSettings()) == (State(10_000, 2), 0.0)


# History


def taken(count: int) -> list[Kept]:
    found = []
    for number in range(count):
        at = number * 5 * SECOND + SECOND
        totals = {("cpu", "some"): number * 100}
        line = Pressure(Line(0, 0, 0, number * 100), None)
        found.append(
            Kept(
                Moment(at - 20, at - 10, totals, {}),
                PressureSample(at, 5, 0.0, {Resource.CPU: line}),
                Moment(at + 10, at + 20, totals, {}),
            )
        )
    return found


def test_the_last_hundred_are_right() -> None:
    kept = taken(105)
    assert judge([one.sample for one in kept[-HISTORY:]], kept) == []


@pytest.mark.parametrize("fault", ["lost", "first", "order", "late", "total"])
def test_each_fault_of_a_history_is_found(fault: str) -> None:
    kept = taken(105)
    history = [one.sample for one in kept[-HISTORY:]]
    if fault == "lost":
        history.pop()
    elif fault == "first":
        history = [one.sample for one in kept[:HISTORY]]
    elif fault == "order":
        history[3], history[4] = history[4], history[3]
    elif fault == "late":
        late = history[50].time_ns + SECOND
        history[50] = PressureSample(late, 5, 0.0, history[50].pressure)
    else:
        wrong = Pressure(Line(0, 0, 0, 7), None)
        history[50] = PressureSample(history[50].time_ns, 5, 0.0, {Resource.CPU: wrong})
    assert judge(history, kept)


# The endpoint


def around(**changes: Any) -> EndpointJudge:
    """Judge a right answer with some values changed; None leaves one out."""
    moments = [Moment(0, 1, dict.fromkeys(KEYS, t), dict.fromkeys(KEYS, a)) for t, a in AROUND]
    said: dict[str, Any] = {f"{kind}_{name}_us": 105 for name, kind in KEYS}
    said |= {"available": True, "history": [{}]}
    said["avg10"] = {f"{kind}_{name}": {"kernel": 1.5} for name, kind in KEYS}
    status = changes.pop("status", 200)
    said = {key: value for key, value in (said | changes).items() if value is not None}
    found = EndpointJudge()
    found.json(moments[0], HttpAnswer(status, "application/json", json.dumps(said)), moments[1])
    return found


AROUND = ((100, 1.0), (110, 2.0))


def test_a_right_answer_has_no_fault() -> None:
    found = around()
    assert found.wrong == []
    assert found.compared > 10


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 503},
        {"available": False},
        {"some_cpu_us": None},
        {"some_memory_us": 99},
        {"full_memory_us": 111},
        {"avg10": {}},
        {"history": []},
        {"history": [{}] * 101},
    ],
)
def test_each_wrong_answer_is_found(changes: dict[str, Any]) -> None:
    assert around(**changes).wrong


@pytest.mark.parametrize(("value", "faults"), [("0.000105", 0), ("0.000099", 3), ("1.0", 3)])
def test_the_twin_is_judged_by_the_same_files(value: str, faults: int) -> None:
    names = ("cpu_waiting", "memory_waiting", "memory_stalled")
    text = "".join(f"node_pressure_{name}_seconds_total {value}\n" for name in names)
    moments = [Moment(0, 1, dict.fromkeys(KEYS, total), {}) for total, _ in AROUND]
    found = EndpointJudge()
    found.twin(moments[0], HttpAnswer(200, "text/plain", text), moments[1])
    assert len(found.wrong) == faults
    empty = EndpointJudge()
    empty.twin(moments[0], HttpAnswer(200, "text/plain", ""), moments[1])
    assert empty.wrong
