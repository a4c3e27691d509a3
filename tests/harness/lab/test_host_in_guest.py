"""The host target where it may change things: a guest measures itself with the suite's program."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperbox.harness.lab.snapshot import Snapshot
from hyperbox.harness.lab.vm import VirtualMachine
from tests.linux import crashing

pytestmark = pytest.mark.vm

ALL = ["cgroup", "controller", "knob", "mount", "null_blk", "swap", "zram"]


@pytest.fixture(scope="module")
def machine(snapshot: Snapshot) -> Iterator[VirtualMachine]:
    with snapshot.clone() as machine:
        machine.execute(["mkdir", "-p", "/tmp/tests/linux"], timeout=60)
        machine.put("/tmp/tests/linux/crashing.py", Path(crashing.__file__).read_bytes())
        program = Path(__file__).with_name("guest_as_host.py")
        machine.put("/tmp/program.py", program.read_bytes())
        yield machine


def _measured(machine: VirtualMachine, how: str) -> Any:
    done = machine.execute(["python3", "/tmp/program.py", how], timeout=300)
    assert done.status == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


def test_a_host_that_may_be_changed_is_measured_and_put_back(machine: VirtualMachine) -> None:
    found = _measured(machine, "whole")
    assert found["status"] == 0, found["said"]
    assert json.loads(found["said"].splitlines()[-1])["metrics"]["memory_some_us"] > 0
    assert found["seen"] == ALL
    assert found["after"] == found["before"]


def test_a_killed_program_leaves_the_host_as_it_was(machine: VirtualMachine) -> None:
    found = _measured(machine, "kill")
    assert found["status"] == -signal.SIGKILL, found["said"]
    assert found["seen"] == ALL
    assert found["after"] == found["before"]
