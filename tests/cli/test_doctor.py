"""``hyperbox doctor``: what is missing, and leftovers of killed runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.harness.runs.leftovers import clear_leftovers, leftovers
from hyperbox.harness.runs.store import RunStore
from hyperbox.linux.knob import KnobChange


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path))


def _half_written(run: Path) -> Path:
    """Make a run directory with a half-written attempt."""
    scratch = run / "cells" / "key" / f".attempt-{os.getpid()}-7"
    scratch.mkdir(parents=True)
    (run / "run.json").touch()
    return scratch


def test_halves_of_a_run_that_nobody_holds_are_leftovers(tmp_path: Path) -> None:
    run, foreign = tmp_path / "run", tmp_path / "foreign"
    scratch = _half_written(run)
    (foreign / "cells" / "key" / ".attempt-1-1").mkdir(parents=True)  # but no run
    with RunStore(run).held():
        assert leftovers([run, foreign]) == ()
        assert clear_leftovers([run, foreign]) == ()
        assert scratch.exists()
    assert leftovers([run, foreign]) == (scratch,)
    assert clear_leftovers([run, foreign]) == (scratch,)
    assert not scratch.exists()
    assert (foreign / "cells" / "key" / ".attempt-1-1").exists()


@pytest.mark.usefixtures("_elsewhere")
def test_facts_and_hints_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    names = {check["name"] for check in checks}
    assert {"python", "qemu", "mmdebstrap", "kvm", "memory", "cache"} <= names
    missing = [check for check in checks if check["required"] and not check["fine"]]
    assert code == (3 if missing else 0)
    assert all(check["fine"] or check["hint"] for check in checks)


@pytest.mark.usefixtures("_elsewhere")
def test_a_bare_machine_gets_the_package_names(tmp_path: Path) -> None:
    bare = {"PATH": os.fspath(tmp_path), "HYPERBOX_CACHE": os.fspath(tmp_path / "cache")}
    program = (
        "import hyperbox.processes as p; p._SEARCH_PATH = '/nowhere'\n"
        "from hyperbox.cli.main import main; raise SystemExit(main(['doctor', '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**bare, "PYTHONPATH": os.fspath(Path(__file__).parents[2])},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["mmdebstrap"]["hint"] == "apt-get install --no-install-recommends mmdebstrap"
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize(
    ("cache", "reason"),
    [
        ("/dev/null/x", "/dev/null is not a directory"),
        ("/dev/null", "/dev/null is not a directory"),
        ("/" + "x" * 300, "File name too long"),
    ],
)
def test_a_cache_that_cannot_be_used_is_missing(
    cache: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", cache)
    assert main(["doctor", "--json"]) == 3
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert reason in checks["cache"]["detail"]
    assert (checks["cache"]["fine"], checks["cache"]["required"]) == (False, True)
    assert "HYPERBOX_CACHE" in checks["cache"]["hint"]


@pytest.mark.root
@pytest.mark.usefixtures("_elsewhere")
def test_a_cache_on_a_read_only_disk_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("HYPERBOX_CACHE", os.fspath(disk / "cache"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", disk], check=True)
    try:
        assert main(["doctor", "--json"]) == 3
    finally:
        subprocess.run(["umount", disk], check=True)
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert f"cannot write in {disk}" in checks["cache"]["detail"]


@pytest.mark.usefixtures("_elsewhere")
def test_repair_says_what_it_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scratch = _half_written(tmp_path / "runs" / "one")
    main(["doctor", "--repair"])
    said = capsys.readouterr().out
    assert f"removed runs/one/cells/key/{scratch.name}" in said
    assert not scratch.exists()


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A setting that a killed process left at 10."""
    monkeypatch.setenv("HYPERBOX_STATE", os.fspath(tmp_path / "state"))
    knob = tmp_path / "knob"
    knob.write_text("60")
    child = os.fork()
    if child == 0:
        KnobChange(knob).apply(10)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    return knob


@pytest.mark.usefixtures("_elsewhere")
def test_changes_of_killed_runs_are_shown_and_undone(
    changed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    (check,) = (check for check in checks if check["name"] == "changes")
    assert not check["fine"]
    assert check["detail"] == f"left by a killed run: {changed} is 10, was 60"
    assert check["hint"] == "hyperbox doctor --repair"
    assert changed.read_text() == "10"
    main(["doctor", "--repair"])
    said = capsys.readouterr().out
    assert f"undone: {changed} is 10, was 60\n" in said
    assert "no change of this machine left" in " ".join(said.split())
    assert changed.read_text() == "60"
    main(["doctor", "--repair", "--json"])
    assert json.loads(capsys.readouterr().out)["changes"] == []


@pytest.mark.usefixtures("_elsewhere")
def test_a_change_that_cannot_be_undone_is_told_and_fails(
    changed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed.unlink()
    changed.mkdir()
    assert main(["doctor", "--repair", "--json"]) == 3
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert (change["kind"], change["subject"]) == ("knob", os.fspath(changed))
    assert change["outcome"] == "failed"
    assert "Is a directory" in change["reason"]
    assert main(["doctor", "--repair"]) == 3
    assert f"cannot be undone: knob {changed}: " in capsys.readouterr().out


@pytest.mark.usefixtures("_elsewhere")
def test_a_machine_left_changed_is_not_measured(
    changed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "--target", "host", "psi.accuracy"]) == 3
    said = capsys.readouterr().err
    assert f"a killed run left this machine changed: {changed} is 10, was 60\n" in said
    assert "hint: hyperbox doctor --repair" in said
    assert not (tmp_path / "runs").exists()
