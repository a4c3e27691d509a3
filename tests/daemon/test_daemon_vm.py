"""The daemon in real guests: it tunes and puts back, and serves without pressure."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from hyperbox.harness.lab.kernel_kit import kernel_kit
from tests.guests import kept_guest

pytestmark = pytest.mark.vm

PROGRAM = Path(__file__).with_name("guest_daemon.py")


def played(commandline: str, *options: str) -> dict[str, Any]:
    """Run the daemon with options in a guest, and return what was seen."""
    made = kept_guest(kernel_kit("7.3"), layers=["daemon"], commandline=commandline)
    with contextlib.closing(made), made.clone() as machine:
        machine.put("/tmp/guest_daemon.py", PROGRAM.read_bytes())
        done = machine.execute(["python3", "/tmp/guest_daemon.py", *options], timeout=400)
    assert done.status == 0, done.stderr.decode()[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_it_tunes_and_puts_back_within_a_second() -> None:
    found = played("", "--tune", "--interval", "1")
    status, psi = found["psi"]
    assert status == 200
    assert psi["available"] is True
    assert psi["tuner"]["mode"] == "tune"
    assert "zram0" in found["during"]["swaps"]
    assert found["after"] == found["before"] != found["during"]
    assert found["status"] == 0
    # The guest's clock counts instructions: a busy host does not make it late.
    assert found["took_s"] < 1
    assert "action=prepare" in found["log"]
    assert "action=restore" in found["log"]
    assert 'hyperbox_tuner_step_in_force{step="fast-swap"} 1.0' in found["metrics"][1]


def test_kernel_booted_without_pressure_is_no_fault() -> None:
    found = played("psi=0")
    status, psi = found["psi"]
    assert status == 200
    assert psi["available"] is False
    assert "psi=0" in psi["reason"]
    health = json.loads(found["health"][1])
    assert (found["health"][0], health["ready"]) == (200, True)
    assert health["services"]["pressure"]["state"] == "unavailable"
    assert 'hyperbox_service_up{service="pressure"} 0.0' in found["metrics"][1]
    assert "node_pressure" not in found["metrics"][1]
    assert (found["status"], found["after"]) == (0, found["before"])
