"""Every kind of change, killed and undone on a real kernel, where nothing has to be spared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperbox.harness.lab.snapshot import Snapshot
from hyperbox.harness.lab.vm import VirtualMachine
from tests.linux import crashing

pytestmark = pytest.mark.vm

PROGRAM = "/tmp/crashing.py"
KINDS = ("cgroup", "controller", "knob", "mount", "null_blk", "swap", "zram")
POINTS = 16


def _run(machine: VirtualMachine, *argv: str) -> Any:
    done = machine.execute(["python3", *argv], timeout=300)
    assert done.status == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def machine(snapshot: Snapshot) -> Iterator[VirtualMachine]:
    """One guest: what a test leaves in it is what both look for."""
    with snapshot.clone() as machine:
        machine.put(PROGRAM, Path(crashing.__file__).read_bytes())
        yield machine


def test_a_program_killed_anywhere_leaves_nothing_after_a_repair(machine: VirtualMachine) -> None:
    found = _run(machine, PROGRAM, "kill", str(POINTS), "1")
    assert found["wrong"] == []
    assert set(found["left_behind"]) == set(KINDS)  # each was there to be undone
    assert found["before"]["swap"] == found["before"]["journals"] == []


def test_the_repair_program_undoes_everything_and_says_so(machine: VirtualMachine) -> None:
    found = _run(machine, PROGRAM, "leave")
    done = machine.execute(["python3", "-m", "hyperbox.linux.undo"], timeout=60)
    again = machine.execute(["python3", "-m", "hyperbox.linux.undo"], timeout=60)
    after = _run(machine, PROGRAM, "look")
    before, left = found["before"], found["left"]
    assert {key for key in before if before[key] == left[key]} == set()
    assert after == before
    lines = done.stdout.decode().splitlines()
    assert (done.status, len(lines)) == (0, 11)
    assert all(line.startswith("undone: ") for line in lines), lines
    assert "undone: vm.swappiness is 80, was 90" in lines
    assert "undone: /dev/zram0 is used for swap, was not" in lines
    assert (again.status, again.stdout) == (0, b"")
