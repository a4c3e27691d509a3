"""A run that is killed in the exact lane and resumed is the run that was never killed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.harness.model import Sample
from hyperbox.harness.runs.loading import load_run

pytestmark = pytest.mark.vm

_GATES = ("harness.power.processor", "harness.power.system_calls")
_OPTIONS = ("--kernel", "6.12", "--blocks", "1", "--seed", "5", "--jobs", "1")


def _validate(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hyperbox", "validate", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _end(process: subprocess.Popen[bytes]) -> None:
    errors = process.communicate(timeout=300)[1].decode()
    assert process.returncode in (0, 3), errors  # one block decides nothing


def _records(run: Path) -> list[Path]:
    return sorted(run.glob("cells/*/attempt-*/record.json"))


def _samples(run: Path) -> dict[str, tuple[Sample, ...]]:
    return {cell.cell.experiment: tuple(cell.samples) for cell in load_run(run).cells}


def _starts(run: Path) -> Iterator[tuple[str, object, object]]:
    for path in _records(run):
        for block in json.loads(path.read_text())["blocks"]:
            yield path.parent.parent.name, block["order"], block["start"]


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _end(_validate(*_GATES, *_OPTIONS, "--run-directory", str(whole)))
    process = _validate(*_GATES, *_OPTIONS, "--run-directory", str(killed))
    try:
        for _ in itertools.count():
            assert process.poll() is None, process.communicate()[1].decode()
            if _records(killed):
                break
            time.sleep(0.02)
        time.sleep(0.5)  # into the second cell
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    kept = {path: path.read_bytes() for path in _records(killed)}
    assert len(kept) == 1
    _end(_validate("--resume", str(killed)))
    assert {path: path.read_bytes() for path in kept} == kept
    assert _samples(killed) == _samples(whole)
    assert all(_samples(whole).values())
    assert list(_starts(killed)) == list(_starts(whole))
