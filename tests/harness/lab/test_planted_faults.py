"""Every way in which a guest can end, planted in the oldest and the newest kernel.

Each fault has a clone of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest

from hyperbox.errors import BootTimeout, GuestCrash, HarnessError, HyperboxError, MachineLost
from hyperbox.harness.lab.capacity import MemoryReservation
from hyperbox.harness.lab.crash import OOM_KILL, WARN, find_reports
from hyperbox.harness.lab.dmesg import TAINT, judge
from hyperbox.harness.lab.kernel_kit import kernel_kit
from hyperbox.harness.lab.nameless import in_memory
from hyperbox.harness.lab.protocol import FrameType
from hyperbox.harness.lab.qemu import GuestHardware, find_qemu
from hyperbox.harness.lab.snapshot import Snapshot, boot_snapshot
from hyperbox.harness.lab.vm import VirtualMachine
from tests.guests import kept_guest
from tests.harness.lab.planted_faults import Template, assemble

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("no_leftovers")]

_KERNELS = ("5.10", "7.3")
_PLANT = "insmod -f /tmp/planted.ko & sleep 1; sleep 400"
# RCU would be the first to complain of a soft lockup.
_PATIENT_RCU = "echo 60 > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout; "
_EAT = (
    "echo 1 > /proc/sys/vm/overcommit_memory; exec python3 -c 'import mmap; mmap.mmap(-1, 4 << 30, "
    "mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)'"
)


@dataclasses.dataclass(frozen=True)
class Plant:
    """A prepared kernel and its fault modules."""

    snapshot: Snapshot
    template: Template
    scratch: Path

    def put(self, machine: VirtualMachine, fault: str) -> None:
        machine.put("/tmp/planted.ko", assemble(self.template, fault, self.scratch))


@contextlib.contextmanager
def _plant(kernel: str, scratch: Path) -> Iterator[Plant]:
    with contextlib.closing(kept_guest(kernel_kit(kernel))) as snapshot:
        with snapshot.clone() as machine:
            found = machine.execute(["modinfo", "-n", "erofs"], timeout=60)
            module = machine.get(found.stdout.decode().strip())
        yield Plant(snapshot, Template.of(module), scratch)


@pytest.fixture(scope="module", params=_KERNELS)
def plant(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plant]:
    with _plant(request.param, tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """For what QEMU, the host and the harness do: it is the same whichever kernel runs."""
    with _plant(_KERNELS[-1], tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.parametrize(
    ("fault", "fingerprint"),
    [
        ("oops", "oops: planted_oops"),
        ("bug", "BUG: planted_bug"),
        ("panic", "panic: planted_panic"),
        ("spin", "soft lockup: planted_spin"),
        ("stall", "RCU stall: planted_stall"),
        ("hang", "hung task: planted_hang"),
    ],
)
def test_kernel_crash_is_named_by_its_stack(plant: Plant, fault: str, fingerprint: str) -> None:
    with plant.snapshot.clone() as machine:
        plant.put(machine, fault)
        before = _PATIENT_RCU if fault == "spin" else ""
        with pytest.raises(GuestCrash) as caught:
            machine.execute(["sh", "-c", before + _PLANT], timeout=120)
        evidence = machine.artifacts()
    assert caught.value.fingerprint == fingerprint
    assert "Kernel panic - not syncing" in evidence.serial
    assert evidence.taint is None


def test_panic_is_told_by_the_kernel_through_qemu_too(plant: Plant) -> None:
    with plant.snapshot.clone() as machine:
        with pytest.raises(GuestCrash, match="sysrq triggered crash"):
            machine.execute(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout=60)
        events = [event["event"] for event in machine.events]
    assert "GUEST_PANICKED" in events


def _ping_for_ever(machine: VirtualMachine) -> None:
    while True:  # it may take its time until the fault is there
        machine.ping()


@pytest.mark.parametrize("fault", ["deaf", "busy"])
def test_guest_that_stops_answering_is_asked_what_it_does(
    plant: Plant, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperbox.harness.lab.vm._PING_TIMEOUT", 3.0)
    with plant.snapshot.clone() as machine:
        plant.put(machine, fault)
        machine.begin(["sh", "-c", _PLANT], {})
        with pytest.raises(MachineLost) as caught:
            _ping_for_ever(machine)
        assert machine.artifacts().taint is None
    assert caught.value.fingerprint == f"stopped answering: planted_{fault}"


def test_guest_that_stands_still_is_noticed_before_its_timeout(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperbox.harness.lab.vm._BEAT", 0.5)
    monkeypatch.setattr("hyperbox.harness.lab.vm._STANDSTILL", 3.0)
    with plant.snapshot.clone() as machine:
        plant.put(machine, "deaf")
        with pytest.raises(MachineLost) as caught:
            machine.execute(["sh", "-c", _PLANT], timeout=600)
    assert caught.value.fingerprint == "stopped answering: planted_deaf"


def test_stopped_processor_is_a_lost_machine(
    newest: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperbox.harness.lab.vm._PING_TIMEOUT", 2.0)
    with newest.snapshot.clone() as machine:
        machine.ping()
        machine.monitor("stop")
        with pytest.raises(MachineLost) as caught:
            machine.execute(["sleep", "1"], timeout=1)
    assert caught.value.fingerprint == "stopped answering: no report"


def _judged(plant: Plant, act: Callable[[VirtualMachine], None]) -> list[str]:
    """Kinds of what the gate refuses after `act`, flags of the module loader aside."""
    with plant.snapshot.clone() as machine:
        act(machine)
        evidence = machine.artifacts()
    assert evidence.taint is not None
    loader = 1 << 1 | 1 << 12 | 1 << 13  # F, O and E
    judgement = judge(
        f"{evidence.serial}\n{evidence.dmesg}",
        evidence.taint & ~loader,
        release="",
        experiment="",
        allowances=(),
    )
    return [report.fingerprint for report in judgement.refused]


def test_clean_kernel_passes_the_gate(plant: Plant) -> None:
    assert _judged(plant, lambda machine: None) == []


def test_warning_is_refused_and_named(plant: Plant) -> None:
    def warn(machine: VirtualMachine) -> None:
        plant.put(machine, "warn")
        assert machine.execute(["insmod", "-f", "/tmp/planted.ko"], timeout=60).status == 0

    assert _judged(plant, warn) == [f"{WARN}: planted_warn"]


def test_taint_without_a_report_is_refused(plant: Plant) -> None:
    def taint(machine: VirtualMachine) -> None:
        machine.execute(["sh", "-c", "echo 64 > /proc/sys/kernel/tainted"], timeout=60)

    assert _judged(plant, taint) == [f"{TAINT}: U"]


def test_workload_that_eats_all_memory_is_killed_and_the_agent_lives(plant: Plant) -> None:
    def hog(machine: VirtualMachine) -> None:
        done = machine.execute(["sh", "-c", _EAT], timeout=200)
        assert done.status == -signal.SIGKILL
        assert machine.execute(["echo", "alive"], timeout=60).stdout == b"alive\n"

    (name,) = _judged(plant, hog)
    assert name.startswith(f"{OOM_KILL}: ")


def test_memory_that_nobody_may_be_killed_for_is_a_crash(plant: Plant) -> None:
    command = f"echo -1000 > /proc/self/oom_score_adj; {_EAT}"
    with plant.snapshot.clone() as machine, pytest.raises(GuestCrash) as caught:
        machine.execute(["sh", "-c", command], timeout=200)
    assert caught.value.fingerprint == "out of memory: System is deadlocked on memory"


def test_death_of_the_agent_is_named(plant: Plant) -> None:
    with plant.snapshot.clone() as machine:
        machine.send(FrameType.EXECUTE, b"{")  # an order that is not JSON: the agent ends
        with pytest.raises(GuestCrash) as caught:
            machine.execute(["true"], timeout=60)
    assert caught.value.fingerprint.startswith("agent death: exitcode=")


def test_power_off_is_no_crash_and_no_success(plant: Plant) -> None:
    with plant.snapshot.clone() as machine, pytest.raises(MachineLost) as caught:
        machine.execute(["sh", "-c", "echo o > /proc/sysrq-trigger; sleep 60"], timeout=60)
    assert caught.value.fingerprint == "power-off: by the guest"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGBUS])
def test_death_of_qemu_is_named_by_its_signal(newest: Plant, number: signal.Signals) -> None:
    with newest.snapshot.clone() as machine:
        machine.ping()
        os.kill(machine.pid, number)
        with pytest.raises(MachineLost) as caught:
            machine.execute(["sleep", "60"], timeout=60)
    names = {signal.SIGTERM: "host-signal"}
    assert caught.value.fingerprint == f"QEMU death: {names.get(number, number.name)}"
    assert not isinstance(caught.value, GuestCrash)


_ENDLESS = ["sh", "-c", "while :; do :; done"]
_BOUND_S = 30.0  # less than one wait for an answer


@contextlib.contextmanager
def _stopped_soon(machine: VirtualMachine) -> Iterator[None]:
    """Stop QEMU in a moment; it must be named as that within the bound, and be reaped."""
    timer = threading.Timer(0.5, os.kill, (machine.pid, signal.SIGSTOP))
    began = time.monotonic()
    timer.start()
    try:
        with pytest.raises(MachineLost) as caught:
            yield
    finally:
        timer.join()
    assert time.monotonic() - began < _BOUND_S
    assert caught.value.fingerprint == "QEMU stopped: by a signal"
    machine.close()
    assert not Path(f"/proc/{machine.pid}").exists()


def test_qemu_that_is_stopped_is_noticed_while_a_command_runs(
    newest: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperbox.harness.lab.vm._BEAT", 0.4)
    with newest.snapshot.clone() as machine, _stopped_soon(machine):
        machine.execute(_ENDLESS, timeout=600)


def test_qemu_that_is_stopped_is_noticed_when_the_commands_time_is_over(newest: Plant) -> None:
    with newest.snapshot.clone() as machine, _stopped_soon(machine):
        machine.execute(_ENDLESS, timeout=1)


def test_qemu_that_is_stopped_is_noticed_in_a_transfer(
    newest: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperbox.harness.lab.vm._PING_TIMEOUT", 2.0)
    with newest.snapshot.clone() as machine, _stopped_soon(machine):
        time.sleep(1)
        machine.put("/tmp/file", b"data")


def test_qemu_that_is_stopped_is_noticed_while_it_boots(
    newest: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperbox.harness.lab.vm._BEAT", 0.4)

    with (
        in_memory("ram") as ram,
        VirtualMachine(find_qemu(), newest.snapshot.hardware, ram=ram, shared=True) as machine,
        _stopped_soon(machine),
    ):
        machine.wait_ready(600)


def _boot(hardware: GuestHardware, timeout: float) -> HyperboxError:
    with (
        in_memory("ram") as ram,
        pytest.raises(HyperboxError) as caught,
        VirtualMachine(find_qemu(), hardware, ram=ram, shared=True) as machine,
    ):
        machine.wait_ready(timeout)
    return caught.value


def test_initramfs_that_is_none_is_a_crash_of_the_boot(plant: Plant, tmp_path: Path) -> None:
    broken = tmp_path / "initramfs"
    broken.write_bytes(b"no archive at all" * 100)
    hardware = dataclasses.replace(plant.snapshot.hardware, initramfs=broken)
    error = _boot(hardware, 120)
    assert isinstance(error, GuestCrash)
    assert error.fingerprint == "no root: VFS: Unable to mount root fs"


def test_kernel_whose_payload_is_damaged_never_boots(plant: Plant, tmp_path: Path) -> None:
    data = bytearray(plant.snapshot.hardware.vmlinuz.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = bytes(4096)
    broken = tmp_path / "vmlinuz"
    broken.write_bytes(data)
    hardware = dataclasses.replace(plant.snapshot.hardware, vmlinuz=broken)
    error = _boot(hardware, 6)
    assert isinstance(error, BootTimeout)
    assert getattr(error, "fingerprint", "").startswith("never boots: ")


@contextlib.contextmanager
def _small_disk(directory: Path, size: str) -> Iterator[Path]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.mark.root
def test_host_without_memory_for_a_guest_is_named(newest: Plant, tmp_path: Path) -> None:
    with (
        _small_disk(tmp_path / "small", "32m") as small,
        FileIO(small / "ram", "w") as ram,
        pytest.raises(MachineLost) as caught,
        VirtualMachine(find_qemu(), newest.snapshot.hardware, ram=ram, shared=True) as machine,
    ):
        machine.wait_ready(60)
    assert caught.value.fingerprint == "QEMU death: SIGBUS"
    assert "no memory left" in caught.value.hint


def test_guest_that_does_not_fit_is_not_started(
    newest: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = MemoryReservation(lambda: 32 << 20)
    monkeypatch.setattr("hyperbox.harness.lab.snapshot._MEMORY", small)
    with pytest.raises(HarnessError, match="32 MiB of memory are free, a guest needs 768 MiB"):
        boot_snapshot(
            find_qemu(), newest.snapshot.hardware, kernel_config="", prepare=lambda machine: None
        )


@pytest.mark.root
def test_panic_is_known_though_the_disk_is_too_full_for_the_console(
    newest: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _small_disk(tmp_path / "full", "64k") as full:
        (full / "filler").write_bytes(bytes(60 << 10))
        with contextlib.suppress(OSError):
            (full / "rest").write_bytes(bytes(64 << 10))
        monkeypatch.setattr("tempfile.tempdir", str(full))
        with newest.snapshot.clone() as machine:
            with pytest.raises(GuestCrash) as caught:
                machine.execute(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout=60)
            assert machine.console() == ""
    assert caught.value.fingerprint == "panic: unreported"


def test_the_faults_are_what_they_say(plant: Plant) -> None:
    """A module that does nothing to its kernel would make every test above worthless."""
    with plant.snapshot.clone() as machine:
        plant.put(machine, "warn")
        machine.execute(["insmod", "-f", "/tmp/planted.ko"], timeout=60)
        said = machine.execute(["dmesg"], timeout=60).stdout.decode()
    assert "planted.c:42" in said
    assert [report.kind for report in find_reports(said)] == [WARN]
