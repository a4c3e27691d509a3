"""The harness suite: known amounts of work, starts of their own, and declarations that fit."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.harness.calibration.answers import ALARMS, PLANTED
from hyperbox.harness.declarations import load_suite
from hyperbox.harness.model import Suite
from hyperbox.processes import run
from suites.harness import work
from suites.harness.load import BackgroundLoad, Ready
from suites.harness.start import number

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite(ROOT / "suites" / "harness" / "suite.toml")


def test_every_load_has_an_experiment_that_runs_when_it_is_named(suite: Suite) -> None:
    assert {item.id for item in suite.experiments} == {f"harness.{name}" for name in work.LOADS}
    assert [item.id for item in suite.experiments if item.default] == []


def test_every_experiment_has_both_gates_and_they_compare_the_right_arms(suite: Suite) -> None:
    """A planted effect is judged in the arm that says how large it is."""
    alarms = [gate for gate in suite.gates if gate.id.startswith(ALARMS)]
    powers = [gate for gate in suite.gates if gate.id.startswith(PLANTED)]
    experiments = {item.id for item in suite.experiments}
    assert {(gate.arm, gate.baseline) for gate in alarms} == {("again", "base")}
    assert {(gate.arm, gate.baseline) for gate in powers} == {("planted", "base")}
    assert {gate.experiment for gate in alarms} == experiments
    assert {gate.experiment for gate in powers} == experiments
    assert all(gate.margin < -work.PLANTED for gate in suite.gates)


def test_planted_arm_does_half_a_percent_less_and_the_metrics_say_so() -> None:
    done: list[int] = []

    @contextmanager
    def set_up() -> Iterator[Ready]:
        yield Ready(lambda: done.append(1), lambda: {"counted": float(len(done))})

    load = BackgroundLoad(1000, set_up, warm_up=3)
    found = work.measure(load, "planted").metrics
    assert (found["units"], found["counted"], found["planted"]) == (995, 995, -0.5)
    assert len(done) == 998
    assert work.measure(load, "again").metrics["planted"] == 0


def test_load_that_has_no_half_percent_is_refused() -> None:
    with pytest.raises(ValueError, match="not a whole number"):
        BackgroundLoad(100, lambda: pytest.fail("not set up"))


@given(st.integers(0, 1 << 31), st.integers(1, 1 << 16))
def test_own_start_is_within_bounds_and_repeats(seed: int, below: int) -> None:
    value = number(f"{seed}/base", "delay", below)
    assert 0 <= value < below
    assert value == number(f"{seed}/base", "delay", below)


def test_arms_of_a_block_start_differently() -> None:
    starts = {number(f"{seed}/{arm}", "delay", 1 << 30) for seed in range(9) for arm in work.ARMS}
    assert len(starts) == 27


@pytest.mark.parametrize("load", ["processor", "system_calls", "processes"])
def test_load_without_rights_measures_what_is_declared(suite: Suite, load: str) -> None:
    experiment = next(item for item in suite.experiments if item.id == f"harness.{load}")
    argv = [word.replace("{arm}", "planted") for word in experiment.program]
    argv = [sys.executable if word == "python3" else word for word in argv]
    environment = {"PYTHONPATH": os.fspath(ROOT), "HYPERBOX_SEED": "5"}
    done = run(argv, timeout=120, environment=environment, cwd=ROOT)
    metrics = json.loads(done.stdout)["metrics"]
    assert set(metrics) == {metric.id for metric in experiment.metrics}
    assert metrics["planted"] == -0.5
