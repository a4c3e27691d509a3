"""The exact lane under a second QEMU than the one on PATH, where there is one.

``HYPERBOX_QEMU_NEWER`` names its program, as ``HYPERBOX_QEMU`` would.
"""

from __future__ import annotations

import contextlib
import os

import pytest

from hyperbox.errors import GuestCrash, MachineLost
from hyperbox.harness.lab.kernel_kit import KernelKit
from hyperbox.harness.lab.qemu import QEMU_VARIABLE, GuestHardware, Qemu, find_qemu
from hyperbox.harness.lab.snapshot import Snapshot, Step, boot_snapshot
from hyperbox.harness.model import Start

_NEWER = "HYPERBOX_QEMU_NEWER"
pytestmark = [
    pytest.mark.vm,
    pytest.mark.usefixtures("no_leftovers"),
    pytest.mark.skipif(not os.environ.get(_NEWER), reason=f"{_NEWER} names no second QEMU"),
]
_LOOK = ("sh", "-c", "uname -r; cat /run/kept; date +%s.%N; cat /proc/self/stat")


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Qemu:
    monkeypatch.setenv(QEMU_VARIABLE, os.environ[_NEWER])
    return find_qemu()


def _judged(snapshot: Snapshot) -> Snapshot:
    found = snapshot.repeatability
    assert found is not None
    assert found.exact, found.reason
    assert found.canonical, found.reason
    return snapshot


def test_it_saves_restores_derives_and_crashes_as_the_other(
    newer: Qemu, kit: KernelKit, hardware: GuestHardware
) -> None:
    with contextlib.ExitStack() as stack:
        made = boot_snapshot(newer, hardware, kernel_config="", prepare=Step(("true",)))
        stack.callback(_judged(made).close)
        child = made.derive(Step(("sh", "-c", "echo kept > /run/kept")))
        stack.callback(_judged(child).close)
        seen = set()
        for _ in range(2):
            with child.clone() as machine:
                done = machine.execute(_LOOK, timeout=60, start=Start(7, delay_ns=1_000_000))
                seen.add((done.status, done.stdout, done.elapsed_ns))
        ((status, said, _),) = seen
        assert (status, said.split()[:2]) == (0, [kit.release.encode(), b"kept"])
        with made.clone() as machine, pytest.raises(GuestCrash, match="sysrq triggered crash"):
            machine.execute(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout=60)
        with made.clone() as machine, pytest.raises(MachineLost) as caught:
            machine.execute(["sh", "-c", "echo o > /proc/sysrq-trigger; sleep 60"], timeout=60)
        assert caught.value.fingerprint == "power-off: by the guest"
