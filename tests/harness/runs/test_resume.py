"""A run that is killed, wherever and however often, and resumed is the uninterrupted run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hyperbox.harness.model import Outcome
from hyperbox.harness.runs.loading import load_run
from hyperbox.harness.runs.store import RunStore
from tests.harness.runs.killed_runs import BEGUN, OPERATIONS, start

_SUITE = """
id = "{suite}"
title = "A tiny suite"

[[experiment]]
id = "{suite}.work"
title = "Deterministic work"
program = ["sh", "work.sh", "{{arm}}"]
changes_machine = false
blocks = {blocks}
timeout_s = 60
arms = [{{ id = "off", title = "untuned" }}, {{ id = "on", title = "tuned" }}]
metrics = [{{ id = "time", title = "Time", unit = "us" }}]

[[gate]]
id = "{suite}.faster"
title = "Tuned is faster"
target = "at least 5 % faster"
experiment = "{suite}.work"
metric = "time"
rule = "reduces_at_least"
margin = 0.05
arm = "on"
baseline = "off"
"""
_WORK = """
value=$((1000 + HYPERBOX_SEED % 97))
[ "$1" = on ] && value=$((value - 100 - HYPERBOX_SEED % 7))
echo "{\\"metrics\\": {\\"time\\": $value}}"
"""
_SUITES = ("one", "two")
_FRESH = ["validate", "--target", "host", "--suites", "suites", "--run-directory", "run"]
_RESUME = ["validate", "--resume", "run", "--target", "host", "--suites", "suites"]
_PATIENCE = 60.0
_STRIDE = 53  # 1 takes a quarter of an hour


def _place(directory: Path, blocks: int) -> Path:
    """Make a project with tiny suites."""
    for suite in _SUITES:
        (directory / "suites" / suite).mkdir(parents=True)
        text = _SUITE.format(suite=suite, blocks=blocks)
        (directory / "suites" / suite / "suite.toml").write_text(text)
    (directory / "work.sh").write_text(_WORK)
    return directory


def _words(place: Path) -> list[str]:
    return _RESUME if (place / "run" / "run.json").exists() else _FRESH


def _go(place: Path, fatal: int = 0) -> int | None:
    """Start or resume the run in a place as its user would; return how it ended."""
    process = start(_words(place), place, fatal)
    process.join(_PATIENCE)
    return process.exitcode


def _results(place: Path) -> tuple[object, ...]:
    """Return every verdict and every sample of a run."""
    run = load_run(place / "run")
    assert {verdict.outcome for verdict in run.verdicts} == {Outcome.PASS}
    return (*run.verdicts, *((cell.cell, cell.samples) for cell in run.cells))


def _attempts(place: Path) -> Mapping[Path, str]:
    """Return every file of every attempt on record, with what is in it."""
    files = (path for path in place.glob("run/cells/*/attempt-*/*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _finished(place: Path) -> set[Path]:
    """Return the directories of the cells that have a finished attempt."""
    if not (place / "run" / "run.json").exists():
        return set()
    store = RunStore.open(place / "run")
    found = ((cell, store.latest(cell)) for cell in store.info().plan.cells())
    return {
        store.directory / "cells" / cell.key for cell, record in found if record and record.finished
    }


@contextlib.contextmanager
def _nothing_lost(place: Path) -> Iterator[None]:
    """Demand that attempts on record stay as they are, and finished cells get no new ones."""
    before, finished = _attempts(place), _finished(place)
    yield
    after = _attempts(place)
    assert {path: after.get(path) for path in before} == before
    again = {path for path in after.keys() - before.keys() if path.parents[1] in finished}
    assert again == set()


def _processes(place: Path) -> list[str]:
    """Return the command lines of processes that work in a place."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").resolve().is_relative_to(place):
                found.append((entry / "cmdline").read_text())
    return found


def _check_whole(place: Path, expected: tuple[object, ...]) -> None:
    """Demand that a finished run equals the uninterrupted one and that nothing else is left."""
    assert RunStore.open(place / "run").info().status == "complete"
    assert _results(place) == expected
    assert {path.name for path in place.glob("run/cells/*/*")} == {"attempt-1"}
    assert list((place / "run").rglob(".*")) == []
    assert (place / "run" / "report" / "report.html").is_file()
    deadline = time.monotonic() + _PATIENCE
    while (left := _processes(place)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def test_killed_before_store_operations(tmp_path: Path) -> None:
    whole = _place(tmp_path / "whole", blocks=8)
    assert _go(whole) == 0
    expected = _results(whole)
    count = int((whole / OPERATIONS).read_text())
    assert count > 20 * len(_SUITES)
    for fatal in (2, *range(3, count, _STRIDE)):
        place = _place(tmp_path / str(fatal), blocks=8)
        died = _go(place, fatal)
        assert died in (-signal.SIGKILL, 0)
        with _nothing_lost(place):
            assert _go(place) == 0
        _check_whole(place, expected)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_at_random_times_again_and_again(tmp_path: Path, number: signal.Signals) -> None:
    whole = _place(tmp_path / "whole", blocks=8)
    began = time.monotonic()
    assert _go(whole) == 0
    took, expected = time.monotonic() - began, _results(whole)
    dice = random.Random(int(number))
    for point in range(2):
        place = _place(tmp_path / str(point), blocks=8)
        for _ in range(3):
            with _nothing_lost(place):
                (place / BEGUN).unlink(missing_ok=True)
                process = start(_words(place), place)
                while not (place / BEGUN).exists():
                    time.sleep(0.001)
                process.join(dice.uniform(0.0, took))
                assert process.pid is not None
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
                process.join(_PATIENCE)
                assert process.exitcode in (0, 130, -number)
        with _nothing_lost(place):
            assert _go(place) == 0
        _check_whole(place, expected)
