"""One attempt: how many blocks are measured before a verdict stands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hyperbox.harness.lab.host import HOST, HostLaboratory
from hyperbox.harness.model import Arm, Cell, Experiment, Gate, Lane, Metric, Outcome, Rule
from hyperbox.harness.runs.attempt import AttemptState, measure
from hyperbox.harness.runs.engine import run_plan
from hyperbox.harness.runs.loading import load_run
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.store import RunStore
from hyperbox.harness.verdicts.gates import decide
from hyperbox.harness.verdicts.release import release

EXPERIMENT = Experiment(
    id="tiny.work",
    suite="tiny",
    title="Work of known length",
    arms=(Arm("off", "untuned"), Arm("on", "tuned")),
    metrics=(Metric("time", "Time", "us"),),
    program=("sh", "work.sh", "{arm}"),
    blocks=32,
    changes_machine=False,
)
CELL = Cell(HOST, EXPERIMENT.id, Lane.HOST)


def gate(margin: float) -> Gate:
    return Gate("tiny.g", "G", "t", EXPERIMENT.id, "time", Rule.NON_INFERIOR, margin, "on", "off")


@pytest.fixture
def laboratory(tmp_path: Path) -> HostLaboratory:
    """Return a host on which the tuned arm takes half as long again."""
    (tmp_path / "work.sh").write_text(
        'if [ "$1" = on ]; then time=150; else time=100; fi\n'
        'echo "{\\"metrics\\": {\\"time\\": $time}}"\n'
    )
    return HostLaboratory(project=tmp_path)


@pytest.mark.parametrize(
    ("margin", "family", "outcome", "blocks"),
    [
        (0.02, 1, Outcome.FAIL, 8),
        (0.02, 2, Outcome.FAIL, 12),
        (0.02, 40, Outcome.FAIL, 20),
        (0.9, 40, Outcome.PASS, 8),
    ],
)
def test_a_fail_goes_on_until_it_can_stand_for_the_release(
    laboratory: HostLaboratory, margin: float, family: int, outcome: Outcome, blocks: int
) -> None:
    judged = gate(margin)
    attempt = measure(laboratory, CELL, EXPERIMENT, (judged,), seed=1, family=family)
    assert attempt.state is AttemptState.MEASURED
    assert len(attempt.blocks) == blocks
    verdict = decide(judged, EXPERIMENT, HOST, Lane.HOST, attempt.samples)
    assert (verdict.outcome, verdict.n) == (outcome, 8)
    if outcome is Outcome.FAIL:
        passed = [decide(gate(0.9), EXPERIMENT, HOST, Lane.HOST, attempt.samples)]
        assert release([verdict, *passed * (family - 1)]).outcome is Outcome.FAIL


def test_a_run_measures_for_the_family_of_its_plan(
    laboratory: HostLaboratory, tmp_path: Path
) -> None:
    gates = (gate(0.02), replace(gate(0.05), id="tiny.h"))
    plan = Plan((HOST,), Lane.HOST, (EXPERIMENT,), gates, 1)
    asked: dict[str, Any] = dict.fromkeys(("modules", "blocks", "suites"))
    asked |= {"names": [], "kernels": [HOST], "allow_host_changes": False}
    versions = {"hyperbox": "0"}
    store = RunStore.create(
        tmp_path / "run", plan, target="host", asked=asked, versions=versions, environment={}
    )
    with ThreadPoolExecutor(1) as executor:
        run_plan(plan, laboratory, store, executor)
    verdicts = load_run(store.directory).verdicts
    assert [(v.outcome, v.details["measured"]) for v in verdicts] == [(Outcome.FAIL, 12.0)] * 2
    assert release(verdicts).outcome is Outcome.FAIL


def test_the_family_is_every_gate_on_every_kernel() -> None:
    gates = (gate(0.02), gate(0.05))
    assert Plan(("6.1", "7.3", "6.12"), Lane.EXACT, (EXPERIMENT,), gates, 1).family == 6
    assert Plan(("6.1",), Lane.EXACT, (EXPERIMENT,), (), 1).family == 1
