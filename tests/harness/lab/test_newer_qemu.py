"""The exact lane under a second QEMU than the one on PATH, where there is one.

``HYPERBOX_QEMU_NEWER`` names its program, as ``HYPERBOX_QEMU`` would.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.errors import GuestCrash, MachineLost
from hyperbox.harness.lab.kernel_kit import KernelKit
from hyperbox.harness.lab.qemu import QEMU_VARIABLE, GuestHardware, find_qemu
from hyperbox.harness.lab.snapshot import PreparationStep, Snapshot, boot_snapshot
from hyperbox.harness.model import Perturbation
from tests.harness.lab.planted_faults import Template, assemble

_NEWER = "HYPERBOX_QEMU_NEWER"
pytestmark = [
    pytest.mark.vm,
    pytest.mark.usefixtures("no_leftovers"),
    pytest.mark.skipif(not os.environ.get(_NEWER), reason=f"{_NEWER} names no second QEMU"),
]
_LOOK = ("sh", "-c", "uname -r; cat /run/kept; date +%s.%N; cat /proc/self/stat")


def _judged(snapshot: Snapshot) -> None:
    found = snapshot.repeatability
    assert found is not None
    assert found.exact, found.reason
    assert found.canonical, found.reason


@pytest.fixture(scope="module")
def made(hardware: GuestHardware) -> Iterator[Snapshot]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(QEMU_VARIABLE, os.environ[_NEWER])
        newer = find_qemu()
    made = boot_snapshot(newer, hardware, kernel_config="", prepare=PreparationStep(("true",)))
    with contextlib.closing(made):
        yield made


def test_snapshots_of_it_are_exact(made: Snapshot, kit: KernelKit) -> None:
    _judged(made)
    seen = set()
    with contextlib.closing(
        made.derive(PreparationStep(("sh", "-c", "echo kept > /run/kept")))
    ) as child:
        _judged(child)
        for _ in range(2):
            with child.clone() as machine:
                done = machine.execute(_LOOK, timeout=60, start=Perturbation(7, delay_ns=1_000_000))
                seen.add((done.status, done.stdout, done.elapsed_ns))
    ((status, said, _),) = seen
    assert (status, said.split()[:2]) == (0, [kit.release.encode(), b"kept"])


def test_its_ends_have_names(made: Snapshot) -> None:
    with made.clone() as machine, pytest.raises(GuestCrash, match="sysrq triggered crash"):
        machine.execute(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout=60)
    with made.clone() as machine, pytest.raises(MachineLost) as caught:
        machine.execute(["sh", "-c", "echo o > /proc/sysrq-trigger; sleep 60"], timeout=60)
    assert caught.value.fingerprint == "power-off: by the guest"


def test_a_guest_that_stands_still_uses_no_time(
    made: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperbox.harness.lab.vm._BEAT", 0.5)
    monkeypatch.setattr("hyperbox.harness.lab.vm._STANDSTILL", 3.0)
    with made.clone() as machine:
        path = machine.execute(["modinfo", "-n", "erofs"], timeout=60).stdout.decode().strip()
        planted = assemble(Template.of(machine.get(path)), "deaf", tmp_path)
        machine.put("/tmp/planted.ko", planted)
        with pytest.raises(MachineLost) as caught:
            machine.execute(["sh", "-c", "insmod -f /tmp/planted.ko; sleep 400"], timeout=120)
    assert caught.value.fingerprint == "stopped answering: planted_deaf"
