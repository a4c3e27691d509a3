"""What a run may go on with: nothing that was changed since, nothing that nobody allowed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyperbox.cli.main import main
from hyperbox.harness.runs.documents import write_document

_SUITE = """
id = "{suite}"
title = "A tiny suite"

[[experiment]]
id = "{suite}.work"
title = "Deterministic work"
program = ["sh", "work.sh"]
changes_machine = true
blocks = 4
arms = [{{ id = "on", title = "tuned" }}]
metrics = [{{ id = "errors", title = "Errors", unit = "1" }}]

[[gate]]
id = "{suite}.correct"
title = "No errors"
target = "none"
experiment = "{suite}.work"
metric = "errors"
rule = "count"
margin = 0
arm = "on"
"""
_WORK = """touch ran
echo '{"metrics": {"errors": 0}}'
"""


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with two suites and half a run of them, which may change the machine."""
    top = tmp_path_factory.mktemp("half")
    for suite in ("one", "two"):
        (top / "mine" / suite).mkdir(parents=True)
        (top / "mine" / suite / "suite.toml").write_text(_SUITE.format(suite=suite))
    (top / "work.sh").write_text(_WORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        patch.setenv("HYPERBOX_CACHE", os.fspath(top / "cache"))
        words = ["--target", "host", "--suites", "mine", "--allow-host-changes"]
        assert main(["validate", *words, "--run-directory", "run"]) == 0
    shutil.rmtree(top / "run" / "cells" / "host--two.work--host")
    _edit(top, lambda document: document.update(status="interrupted"))
    (top / "run").rename(top / "kept")
    return top


@pytest.fixture
def place(half: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the half run as it was left, and stand beside it."""
    shutil.rmtree(half / "run", ignore_errors=True)
    shutil.copytree(half / "kept", half / "run")
    (half / "ran").unlink(missing_ok=True)
    monkeypatch.chdir(half)
    monkeypatch.setenv("HYPERBOX_CACHE", os.fspath(half / "cache"))
    return half


def _edit(place: Path, change: Callable[[Any], object]) -> None:
    path = place / "run" / "run.json"
    document = json.loads(path.read_text())
    change(document)
    write_document(path, "run", document)  # sealed, as whoever forges one can do


def _resume(*words: str) -> int:
    return main(["validate", "--resume", "run", *words])


def _resume_as_begun(*words: str) -> int:
    return _resume("--target", "host", "--suites", "mine", "--allow-host-changes", *words)


def _nothing_happened(place: Path) -> bool:
    document = json.loads((place / "run" / "run.json").read_text())
    cells = [path.name for path in (place / "run" / "cells").iterdir()]
    ran = (place / "ran").exists()
    return document["status"] == "interrupted" and cells == ["host--one.work--host"] and not ran


def test_a_run_goes_on_if_all_is_said_again(place: Path) -> None:
    assert _resume_as_begun() == 0
    assert json.loads((place / "run" / "run.json").read_text())["status"] == "complete"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--target", "host"),
        ("--target", "host", "--suites", "mine"),
        ("--target", "host", "--allow-host-changes"),
        ("--suites", "mine", "--allow-host-changes"),
    ],
)
def test_nothing_runs_on_this_machine_that_is_not_said(
    place: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    for dry in ((), ("--dry-run",)):
        capsys.readouterr()
        assert _resume(*words, *dry) == 64
        said, hint = capsys.readouterr().err.splitlines()
        assert f"run runs programs of the suites in {place / 'mine'} on this machine" in said
        assert "which may change its settings: sh work.sh; sh work.sh" in said
        again = f"--resume run --target host --suites {place / 'mine'} --allow-host-changes"
        assert hint.endswith(again)
    assert _nothing_happened(place)


def test_a_run_of_guests_is_not_measured_on_this_machine(place: Path) -> None:
    _edit(place, lambda document: document.update(target="vm"))
    assert _resume_as_begun() == 64
    assert _nothing_happened(place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda plan: plan["experiments"][1].update(program=["touch", "ran"]),
            "experiment two.work of its plan is declared with other program",
        ),
        (
            lambda plan: plan["experiments"][1].update(prepare=["touch", "ran"]),
            "experiment two.work of its plan is declared with other prepare",
        ),
        (
            lambda plan: plan["experiments"][1].update(changes_machine=False, timeout_s=1),
            "experiment two.work of its plan is declared with other timeout_s, changes_machine",
        ),
        (
            lambda plan: plan["gates"][0].update(margin=1e9),
            "gate one.correct of its plan is declared with other margin",
        ),
        (
            lambda plan: (
                [plan[kind][1].update(id="evil") for kind in ("experiments", "gates")]
                and plan["gates"][1].update(experiment="evil")
            ),
            "experiment evil of its plan is not declared",
        ),
    ],
)
def test_a_plan_that_is_not_declared_is_refused(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Any], object],
    message: str,
) -> None:
    _edit(place, lambda document: change(document["plan"]))
    assert _resume_as_begun() == 64
    assert f"cannot go on with run: {message}" in capsys.readouterr().err
    assert _nothing_happened(place)


def test_another_number_of_blocks_is_the_plans_own_affair(place: Path) -> None:
    _edit(place, lambda document: document["plan"]["experiments"][1].update(blocks=2))
    assert _resume_as_begun() == 0


def test_changed_programs_are_named_and_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "work.sh").write_text(f"# other\n{_WORK}")
    assert _resume_as_begun() == 64
    said, hint = capsys.readouterr().err.splitlines()
    assert "since host--one.work--host was measured these have changed: suite's programs" in said
    assert "go on with" not in hint
    assert _nothing_happened(place)
    (place / "work.sh").write_text(_WORK)
    assert _resume_as_begun() == 0


def test_a_damaged_record_holds_up_the_rest(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = place / "run/cells/host--one.work--host/attempt-1/record.json"
    record.write_text(record.read_text()[:-100])
    assert _resume_as_begun() == 3
    said, hint = capsys.readouterr().err.splitlines()
    assert str(record.relative_to(place)) in said
    assert f"take away {record.relative_to(place).parents[1]}" in hint
    assert _nothing_happened(place)
