"""A real guest: commands, files, and every way in which it can end."""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.errors import BootTimeout, GuestCrash, MachineLost, WorkloadError
from hyperbox.harness.lab.kernel_kit import KernelKit
from hyperbox.harness.lab.nameless import in_memory, on_disk
from hyperbox.harness.lab.qemu import GuestHardware, find_qemu
from hyperbox.harness.lab.snapshot import PreparationStep, Snapshot, boot_snapshot
from hyperbox.harness.lab.vm import VirtualMachine
from hyperbox.harness.model import Perturbation

pytestmark = pytest.mark.vm


def test_command_runs_under_the_kernel_asked_for(snapshot: Snapshot, kit: KernelKit) -> None:
    with snapshot.clone() as machine:
        done = machine.execute(["sh", "-c", "uname -r; pwd; echo err >&2; exit 5"], timeout=60)
    assert done.status == 5
    assert done.stdout.decode().split() == [kit.release, "/opt/hyperbox"]
    assert done.stderr == b"err\n"


def test_project_is_importable_in_the_guest(snapshot: Snapshot) -> None:
    with snapshot.clone() as machine:
        done = machine.execute(
            ["python3", "-c", "import hyperbox; print(hyperbox.__version__)"], timeout=60
        )
    assert done.status == 0, done.stderr


def test_files_go_there_and_back(snapshot: Snapshot) -> None:
    data = os.urandom(600_000)
    with snapshot.clone() as machine:
        machine.put("/tmp/deep/file", data)
        assert machine.get("/tmp/deep/file") == data
        with pytest.raises(FileNotFoundError, match="/tmp/absent"):
            machine.get("/tmp/absent")


def test_clones_are_equal_and_independent(snapshot: Snapshot) -> None:
    listing = ["sh", "-c", "cat /tmp/mark 2>/dev/null; echo x > /tmp/mark; cat /proc/uptime"]
    seen = set()
    for _ in range(3):
        with snapshot.clone() as machine:
            seen.add(machine.execute(listing, timeout=60, start=Perturbation(1)).stdout)
    assert len(seen) == 1


def test_start_delay_moves_the_start_by_exactly_that_much(snapshot: Snapshot) -> None:
    now = ["python3", "-c", "import time; print(time.monotonic_ns())"]
    times = []
    for delay in (0, 300_000_000):
        with snapshot.clone() as machine:
            done = machine.execute(now, timeout=60, start=Perturbation(1, delay_ns=delay))
            times.append(int(done.stdout))
    # Timer ticks fall elsewhere: equal to a fraction of the work before the print.
    assert times[1] - times[0] == pytest.approx(300_000_000, abs=20_000_000)


def test_perturbation_reaches_the_program(snapshot: Snapshot) -> None:
    with snapshot.clone() as machine:
        command = ["sh", "-c", "echo $HYPERBOX_SEED ${#HYPERBOX_PADDING}"]
        done = machine.execute(command, timeout=60, start=Perturbation(7, padding=33))
    assert done.stdout == b"7 33\n"


def test_derived_snapshot_keeps_its_preparation(snapshot: Snapshot, no_leftovers: None) -> None:
    def prepare(machine: VirtualMachine) -> None:
        machine.execute(["sh", "-c", "echo prepared > /run/state"], timeout=60)

    child = snapshot.derive(prepare)
    try:
        with child.clone() as machine:
            assert machine.get("/run/state") == b"prepared\n"
        with snapshot.clone() as machine, pytest.raises(FileNotFoundError):
            machine.get("/run/state")
    finally:
        child.close()


def test_failing_preparation_leaves_nothing(snapshot: Snapshot, no_leftovers: None) -> None:
    def prepare(machine: VirtualMachine) -> None:
        raise WorkloadError("planted")

    with pytest.raises(WorkloadError, match="planted"):
        snapshot.derive(prepare)


def test_panic_is_a_crash_with_a_fingerprint(snapshot: Snapshot, no_leftovers: None) -> None:
    with snapshot.clone() as machine:
        with pytest.raises(GuestCrash) as caught:
            machine.execute(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout=60)
        evidence = machine.artifacts()
    assert "sysrq_handle_crash" in caught.value.fingerprint
    assert "Kernel panic" in evidence.serial
    assert "CONFIG_PSI=y" in evidence.kernel_config


def test_death_of_the_agent_is_a_crash(snapshot: Snapshot, no_leftovers: None) -> None:
    # Nothing may kill PID 1 by a signal without a handler, but its stack can be damaged.
    damage = (
        "import re; maps = open('/proc/1/maps').read(); "
        "low = int(re.search('([0-9a-f]+)-[0-9a-f]+ rw-p .*stack', maps).group(1), 16); "
        "high = int(re.search('-([0-9a-f]+) rw-p .*stack', maps).group(1), 16); "
        "memory = open('/proc/1/mem', 'r+b', 0); memory.seek(low); memory.write(bytes(high - low))"
    )
    with snapshot.clone() as machine, pytest.raises(GuestCrash, match="Attempted to kill init"):
        machine.execute(["python3", "-c", damage], timeout=60)


def test_killed_qemu_is_a_lost_machine_not_a_crash(snapshot: Snapshot, no_leftovers: None) -> None:
    with snapshot.clone() as machine:
        machine.ping()
        os.kill(machine.pid, signal.SIGKILL)
        with pytest.raises(MachineLost, match="status -9") as caught:
            machine.execute(["true"], timeout=60)
    assert not isinstance(caught.value, GuestCrash)


def test_hanging_guest_is_lost_not_a_failed_workload(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperbox.harness.lab.vm._PING_TIMEOUT", 2.0)
    with snapshot.clone() as machine:
        machine.ping()
        machine.monitor("stop")
        with pytest.raises(MachineLost, match="ping"):
            machine.execute(["sleep", "1"], timeout=1)


def test_endless_command_is_a_workload_failure_and_the_guest_lives(snapshot: Snapshot) -> None:
    spin = ["python3", "-c", "while True: pass"]
    with snapshot.clone() as machine:
        with pytest.raises(WorkloadError, match="no end after 2 s"):
            machine.execute(spin, timeout=2)
        assert machine.execute(["echo", "alive"], timeout=60).stdout == b"alive\n"


def test_what_a_command_leaves_running_ends_with_it(snapshot: Snapshot) -> None:
    daemon = "setsid sh -c 'echo $$ > /tmp/pid; while :; do echo other; done' > /dev/null &"
    with snapshot.clone() as machine:
        script = f"({daemon}); until [ -s /tmp/pid ]; do :; done; echo mine"
        done = machine.execute(["sh", "-c", script], timeout=60)
        listed = machine.execute(["sh", "-c", "ps -p $(cat /tmp/pid)"], timeout=60)
    assert (done.status, done.stdout) == (0, b"mine\n")
    assert listed.status == 1, listed.stdout


def test_unknown_program_is_a_workload_failure(snapshot: Snapshot) -> None:
    with snapshot.clone() as machine, pytest.raises(WorkloadError, match="no-such-program"):
        machine.execute(["no-such-program"], timeout=60)


def test_slow_boot_is_a_timeout_with_the_consoles_last_line(
    hardware: GuestHardware, no_leftovers: None
) -> None:
    with (
        in_memory("ram") as ram,
        VirtualMachine(find_qemu(), hardware, ram=ram, shared=True) as machine,
        pytest.raises(BootTimeout, match=r"no agent after 0.1 s"),
    ):
        machine.wait_ready(timeout=0.1)


def test_guest_that_never_boots_leaves_its_console(
    hardware: GuestHardware, no_leftovers: None
) -> None:
    hopeless = dataclasses.replace(hardware, extra_commandline="hyperbox.probe")
    with pytest.raises(MachineLost, match="status 0") as caught:
        boot_snapshot(find_qemu(), hopeless, kernel_config="", prepare=lambda machine: None)
    assert "hyperbox-init: probe booted" in caught.value.console


def test_qemu_that_does_not_start_says_why(
    hardware: GuestHardware, tmp_path: Path, no_leftovers: None
) -> None:
    missing = dataclasses.replace(hardware, vmlinuz=tmp_path / "no" / "vmlinuz")
    with in_memory("ram") as ram, pytest.raises(MachineLost, match="could not open kernel file"):
        VirtualMachine(find_qemu(), missing, ram=ram, shared=True)


def test_close_ends_qemu_and_is_harmless_twice(snapshot: Snapshot) -> None:
    with snapshot.clone() as machine:
        pid = machine.pid
        machine.close()
        machine.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


_NOBODY = 65534


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Path, bytes]]:
    """What another user put where earlier guests had their files, and its content."""
    shared, scratch = Path("/dev/shm"), tmp_path / "scratch"
    scratch.mkdir(mode=0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    victim = tmp_path / "victim"
    found = {victim: b"of root"}
    links = []
    for number in range(40):
        prefix = f"hyperbox-{os.getpid()}-{number}"
        for name in ("ram", "state", "mailbox"):
            found[shared / f"{prefix}.{name}"] = b"planted"
        for name in ("serial.log", "serial.err"):
            links.append(scratch / f"{prefix}.{name}")
            links[-1].symlink_to(victim)
    for path, data in found.items():
        path.write_bytes(data)
        path.chmod(0o666)
        os.chown(path, 0 if path == victim else _NOBODY, -1)
    yield found
    for path in (*found, *links):
        path.unlink(missing_ok=True)


@pytest.mark.root
def test_files_and_links_of_another_user_are_neither_read_nor_written(
    snapshot: Snapshot, planted: dict[Path, bytes], no_leftovers: None
) -> None:
    # A guest's memory was opened where it lay: its writer decided what a gate saw.
    child = snapshot.derive(PreparationStep(("sh", "-c", "echo mine > /run/mine")))
    try:
        with child.clone() as machine:
            assert machine.execute(["cat", "/run/mine"], timeout=60).stdout == b"mine\n"
            used = _paths_of(machine.pid)
            assert not [path for path in used if path.startswith("/dev/shm/")]
            assert any(path.startswith("/memfd:hyperbox-ram") for path in used)
    finally:
        child.close()
    assert {path: path.read_bytes() for path in planted} == planted


def _paths_of(pid: int) -> set[str]:
    """Return every file that a process has open or mapped."""
    found = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        found.update(line.split(maxsplit=5)[5:])
    return found


@pytest.mark.root
def test_files_of_guests_are_closed_to_other_users() -> None:
    with in_memory("ram") as ram, on_disk() as log:
        for file in (ram, log):
            assert os.fstat(file.fileno()).st_mode & 0o77 == 0
            other = os.fork()
            if not other:
                os.setuid(_NOBODY)
                try:
                    os.open(f"/proc/{os.getppid()}/fd/{file.fileno()}", os.O_RDONLY)
                except PermissionError:
                    os._exit(0)
                os._exit(1)
            assert os.waitpid(other, 0)[1] == 0
