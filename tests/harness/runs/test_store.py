"""A run directory is whole, checked, and survives what happens to it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.harness.declarations import load_suites
from hyperbox.harness.lab.machine import Artifacts
from hyperbox.harness.model import (
    Arm,
    Cell,
    Experiment,
    Gate,
    Lane,
    MachineRequest,
    Metric,
    Perturbation,
    Rule,
    Sample,
)
from hyperbox.harness.runs.attempt import Attempt, AttemptState, BlockRecord
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.schema import check, schema
from hyperbox.harness.runs.store import RunStore, plan_document, plan_from

_EXPERIMENT = Experiment(
    id="demo.load",
    suite="demo",
    title="Demo",
    arms=(Arm("off", "off"), Arm("on", "on")),
    metrics=(Metric("time", "Time", "us"),),
    program=("true", "{arm}"),
    prepare=("true",),
)
_GATE = Gate("demo.g", "G", "t", "demo.load", "time", Rule.NON_INFERIOR, 0.02, "on", "off", None)
_PLAN = Plan(("6.12",), Lane.EXACT, (_EXPERIMENT,), (_GATE,), 7)
_CELL = Cell("6.12", "demo.load", Lane.EXACT)
_SAMPLES = (Sample(0, 0, "on", "time", 1.5), Sample(0, 1, "off", "time", 2.5))


def _store(directory: Path) -> RunStore:
    return RunStore.create(
        directory,
        _PLAN,
        target="vm",
        asked={
            "names": [],
            "kernels": ["6.12"],
            "modules": None,
            "blocks": None,
            "allow_host_changes": False,
            "suites": None,
        },
        versions={"hyperbox": "0"},
        environment={},
    )


def _attempt(state: AttemptState = AttemptState.MEASURED, reason: str = "") -> Attempt:
    block = BlockRecord(
        0, ("on", "off"), Perturbation(1, 2, 3), {"on": 0.1, "off": 0.2}, {"on": {"a": 1}}
    )
    return Attempt(
        state=state,
        started=1_700_000_000.5,
        ended=1_700_000_002.0,
        samples=_SAMPLES,
        blocks=(block,),
        environment={"kernel": {"label": "6.12"}},
        artifacts=Artifacts("serial\n", "dmesg\n", "CONFIG_PSI=y\n"),
        warnings=("mm/x.c:1",),
        reason=reason,
    )


@pytest.mark.parametrize("kind", ["run", "record"])
def test_the_published_schemas_are_valid_schemas(kind: str) -> None:
    Draft202012Validator.check_schema(schema(kind))


def test_plan_round_trip() -> None:
    """Resuming compares it with what is declared: every field has to come back."""
    suites = load_suites()
    experiments = tuple(one for suite in suites for one in suite.experiments)
    declared = replace(
        _PLAN, experiments=experiments, gates=tuple(g for s in suites for g in s.gates)
    )
    for plan in (_PLAN, declared):
        assert plan_from(json.loads(json.dumps(plan_document(plan)))) == plan


def test_plans_of_old_runs_know_ratios_only() -> None:
    document = json.loads(json.dumps(plan_document(_PLAN)))
    for gate in document["gates"]:
        del gate["scale"]
    assert plan_from(document) == _PLAN


def test_metrics_of_old_runs_have_a_range_only_where_they_are_times() -> None:
    metrics = (Metric("time", "Time", "us"), Metric("planted", "Planted", "%", least=None))
    plan = replace(_PLAN, experiments=(replace(_EXPERIMENT, metrics=metrics),))
    document = json.loads(json.dumps(plan_document(plan)))
    assert plan_from(document) == plan
    for metric in document["experiments"][0]["metrics"]:
        del metric["least"], metric["most"]
    assert plan_from(document) == plan


def test_a_run_is_created_once(tmp_path: Path) -> None:
    store = _store(tmp_path / "run")
    assert store.info().plan == _PLAN
    assert store.info().status == "running"
    with pytest.raises(ConfigError, match="holds a run already") as caught:
        _store(tmp_path / "run")
    assert "--resume" in caught.value.hint
    store.set_status("complete")
    assert RunStore.open(tmp_path / "run").info().status == "complete"


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run directory"):
        RunStore.open(tmp_path)


def test_an_attempt_is_recorded_as_specified(tmp_path: Path) -> None:
    store = _store(tmp_path)
    record = store.record(_CELL, _attempt(), _EXPERIMENT)
    assert record.directory == tmp_path / "cells" / "6.12--demo.load--exact" / "attempt-1"
    assert {path.name for path in record.directory.iterdir()} == {
        "record.json",
        "samples.parquet",
        "serial.log",
        "dmesg.txt",
        "kernel.config",
    }
    assert [path.name for path in record.directory.parent.iterdir()] == ["attempt-1"]
    assert (record.directory / "kernel.config").read_text() == "CONFIG_PSI=y\n"
    (again,) = store.records(_CELL)
    assert again.document == record.document
    assert again.samples() == _SAMPLES
    assert again.document["started"] == "2023-11-14T22:13:20.500Z"


@given(
    samples=st.lists(
        st.builds(
            Sample,
            block=st.integers(0, 99),
            position=st.integers(0, 3),
            arm=st.sampled_from(["on", "off"]),
            metric=st.just("time"),
            value=st.floats(allow_nan=False, allow_infinity=False),
        ),
        max_size=20,
    )
)
def test_samples_round_trip(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]
) -> None:
    store = _store(tmp_path_factory.mktemp("run"))
    attempt = replace(_attempt(), samples=tuple(samples))
    store.record(_CELL, attempt, _EXPERIMENT)
    assert store.records(_CELL)[0].samples() == tuple(samples)


def test_the_first_finished_attempt_counts_else_the_newest(tmp_path: Path) -> None:
    store = _store(tmp_path)
    assert store.latest(_CELL) is None
    store.record(_CELL, _attempt(AttemptState.FAILED, "one"), _EXPERIMENT)
    store.record(_CELL, _attempt(AttemptState.FAILED, "two"), _EXPERIMENT)
    latest = store.latest(_CELL)
    assert latest is not None
    assert latest.document["reason"] == "two"
    store.record(_CELL, _attempt(AttemptState.MEASURED), _EXPERIMENT)
    store.record(_CELL, _attempt(AttemptState.FAILED, "four"), _EXPERIMENT)
    latest = store.latest(_CELL)
    assert latest is not None
    assert latest.document["attempt"] == 3
    assert [record.document["attempt"] for record in store.records(_CELL)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "SHA-256 is not the one"),
        (lambda path: path.unlink(), "cannot read"),
    ],
)
def test_damaged_samples_are_named(tmp_path: Path, change: object, message: str) -> None:
    record = _store(tmp_path).record(_CELL, _attempt(), _EXPERIMENT)
    assert callable(change)
    change(record.directory / "samples.parquet")
    with pytest.raises(HarnessError, match=message):
        record.samples()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "is not a valid record.json"),
        ('{"schema_version": 99}', "has schema version 99, this hyperbox knows 1"),
    ],
)
def test_damaged_records_are_named(tmp_path: Path, text: str, message: str) -> None:
    store = _store(tmp_path)
    record = store.record(_CELL, _attempt(), _EXPERIMENT)
    (record.directory / "record.json").write_text(text)
    with pytest.raises(HarnessError, match=message):
        store.records(_CELL)


def test_unknown_keys_are_no_run(tmp_path: Path) -> None:
    store = _store(tmp_path)
    document = {**store.info().document, "colour": 1}
    with pytest.raises(HarnessError, match="colour"):
        check("run", document, "run.json")


def test_a_second_hyperbox_is_kept_out_and_leftovers_go(tmp_path: Path) -> None:
    store = _store(tmp_path)
    scratch = tmp_path / "cells" / _CELL.key / ".attempt-1-1"
    scratch.mkdir(parents=True)
    with store.exclusive():
        assert not scratch.exists()
        with pytest.raises(ConfigError, match="another hyperbox"), store.exclusive():
            pass
    with store.exclusive():
        pass


def test_a_run_that_cannot_be_held_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "run" / ".run.json.left").mkdir(parents=True)
    for name in ("file", "file/run", "run"):
        store = RunStore(tmp_path / name)
        with pytest.raises(HarnessError, match="cannot write") as caught, store.exclusive():
            pass
        assert caught.value.hint


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a tmpfs of 128 KiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", mount], check=True)
    yield mount
    subprocess.run(["umount", mount], check=True)


def _fill(store: RunStore) -> None:
    while True:
        store.record(_CELL, _attempt(), _EXPERIMENT)


@pytest.mark.root
def test_a_full_disk_leaves_whole_attempts_only(small_disk: Path) -> None:
    store = _store(small_disk)
    with pytest.raises(HarnessError, match=os.strerror(errno.ENOSPC)):
        _fill(store)
    home = small_disk / "cells" / _CELL.key
    attempts = len(store.records(_CELL))
    assert attempts > 0
    assert {path.name for path in home.iterdir()} == {f"attempt-{n + 1}" for n in range(attempts)}
    assert all(record.samples() == _SAMPLES for record in store.records(_CELL))


def test_experiments_before_machines_could_be_asked_for_are_read() -> None:
    plan = Plan(("6.12",), Lane.EXACT, (_EXPERIMENT,), (), seed=7)
    document = plan_document(plan)
    assert plan_from(document) == plan
    (item,) = document["experiments"]
    del item["machine"]
    item["commandline"] = "psi=0"
    (found,) = plan_from(document).experiments
    assert found.machine == MachineRequest(commandline="psi=0", mitigations=False)
