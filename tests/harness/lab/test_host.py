"""The host as a machine: same contract as a VM, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hyperbox.errors import HarnessError, KernelFeatureMissing, WorkloadError
from hyperbox.harness.lab.host import HOST, ChangesRefused, HostLaboratory, HostMachine
from hyperbox.harness.lab.machine import Laboratory
from hyperbox.harness.model import Arm, Experiment, MachineRequest, Metric, Perturbation
from hyperbox.paths import project_directory


def _experiment(*, changes: bool = False, prepare: tuple[str, ...] = ()) -> Experiment:
    return Experiment(
        id="demo.load",
        suite="demo",
        title="Demo",
        arms=(Arm("on", "on"),),
        metrics=(Metric("time", "Time", "us"),),
        program=("true",),
        prepare=prepare,
        changes_machine=changes,
    )


@pytest.fixture
def machine(tmp_path: Path) -> HostMachine:
    return HostMachine(tmp_path)


def test_it_is_a_laboratory_of_one_kernel() -> None:
    laboratory: Laboratory = HostLaboratory()
    assert laboratory.labels() == (HOST,)
    laboratory.close()


def test_changes_are_refused_unless_allowed(tmp_path: Path) -> None:
    with pytest.raises(ChangesRefused, match="not allowed") as caught:
        HostLaboratory(project=tmp_path).source(HOST, _experiment(changes=True))
    assert isinstance(caught.value, KernelFeatureMissing)
    assert caught.value.hint == "add --allow-host-changes"
    HostLaboratory(project=tmp_path, allow_changes=True).source(HOST, _experiment(changes=True))


def test_preparation_runs_in_the_project_and_its_failure_is_told(tmp_path: Path) -> None:
    laboratory = HostLaboratory(project=tmp_path)
    laboratory.source(HOST, _experiment(prepare=("touch", "prepared")))
    assert (tmp_path / "prepared").exists()
    with pytest.raises(HarnessError, match=r"preparation .*no luck"):
        laboratory.source(HOST, _experiment(prepare=("sh", "-c", "echo no luck >&2; exit 1")))
    with pytest.raises(HarnessError, match=r"runs its own kernel, not 6\.12"):
        laboratory.source("6.12", _experiment())


def test_commands_get_start_and_environment(machine: HostMachine, tmp_path: Path) -> None:
    start = Perturbation(seed=7, delay_ns=1, padding=3)
    done = machine.execute(
        ["sh", "-c", "pwd; echo $HYPERBOX_SEED $HYPERBOX_PADDING $MORE; echo e >&2; exit 5"],
        timeout=20,
        start=start,
        environment={"MORE": "more"},
    )
    assert done.status == 5
    assert done.stdout.decode().split() == [str(tmp_path), "7", "xxx", "more"]
    assert done.stderr == b"e\n"


def test_the_projects_package_can_be_imported(machine: HostMachine) -> None:
    done = machine.execute(["python3", "-c", "import hyperbox; print('ok')"], timeout=60)
    assert done.stdout == b"ok\n", done.stderr


def test_signals_are_negative_statuses(machine: HostMachine) -> None:
    assert machine.execute(["sh", "-c", "kill -9 $$"], timeout=20).status == -signal.SIGKILL


def test_a_command_that_outlives_its_time_is_killed(machine: HostMachine) -> None:
    with pytest.raises(WorkloadError, match=r"no end after 0\.3 s: sleep 600"):
        machine.execute(["sleep", "600"], timeout=0.3)
    with pytest.raises(WorkloadError, match="no such program"):
        machine.execute(["no-such-tool"], timeout=5)


DAEMON = "(setsid sh -c 'echo $$ > pid.new; mv pid.new pid; while :; do echo other; done' &)"


@pytest.mark.parametrize(
    "end", ["exit 0", "kill -9 $$", "trap '' TERM; kill 0; exit 0", "sleep 600"]
)
def test_a_daemon_ends_with_the_program_that_made_it(
    machine: HostMachine, tmp_path: Path, end: str
) -> None:
    script = f"{DAEMON}; until [ -e pid ]; do sleep 0.01; done; {end}"
    with contextlib.suppress(WorkloadError):
        machine.execute(["sh", "-c", script], timeout=2)
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


HARNESS = """
import sys; from pathlib import Path; from hyperbox.harness.lab.host import HostMachine
HostMachine(Path.cwd()).execute(["sh", "-c", sys.argv[1]], timeout=600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_daemon_ends_with_the_harness(tmp_path: Path, number: signal.Signals) -> None:
    script = f"{DAEMON}; until [ -e pid ]; do sleep 0.01; done; echo > up; sleep 600"
    path = {**os.environ, "PYTHONPATH": os.fspath(project_directory())}
    process = subprocess.Popen([sys.executable, "-c", HARNESS, script], cwd=tmp_path, env=path)
    while not (tmp_path / "up").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.wait()
    daemon, deadline = Path("/proc", (tmp_path / "pid").read_text().strip()), time.monotonic() + 30
    while daemon.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_result_is_what_was_there_when_the_program_ended(machine: HostMachine) -> None:
    # kill(1) finds a zombie too: the child writes when the program has been waited for
    late = 'setsid sh -c "while kill -0 $$; do :; done; echo other" 2> /dev/null &'
    done = machine.execute(["sh", "-c", f"{late} echo mine; exit 4"], timeout=20)
    assert (done.status, done.stdout) == (4, b"mine\n")


def test_files_are_put_read_and_removed_again(tmp_path: Path) -> None:
    source = HostLaboratory(project=tmp_path).source(HOST, _experiment())
    mine = tmp_path / "mine"
    mine.write_text("precious")
    with source.fresh() as machine:
        machine.put(os.fspath(tmp_path / "new"), b"data")
        assert machine.get(os.fspath(tmp_path / "new")) == b"data"
        with pytest.raises(HarnessError, match="not overwritten"):
            machine.put(os.fspath(mine), b"data")
        with pytest.raises(FileNotFoundError):
            machine.get(os.fspath(tmp_path / "absent"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert mine.read_text() == "precious"


CHANGER = """
import os, signal, sys, time
from pathlib import Path
from hyperbox.linux.knob import KnobChange
KnobChange(Path(sys.argv[1])).apply(10)
end = sys.argv[2]
{"killed": lambda: os.kill(os.getpid(), signal.SIGKILL), "careless": lambda: os._exit(0),
 "endless": lambda: time.sleep(600)}[end]()
"""


@pytest.fixture
def knob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYPERBOX_STATE", os.fspath(tmp_path / "state"))
    path = tmp_path / "knob"
    path.write_text("60")
    return path


@pytest.mark.parametrize(("end", "status"), [("killed", -signal.SIGKILL), ("careless", 0)])
def test_what_a_program_left_changed_is_undone(
    machine: HostMachine, knob: Path, end: str, status: int
) -> None:
    done = machine.execute(["python3", "-c", CHANGER, os.fspath(knob), end], timeout=60)
    assert done.status == status, done.stderr
    assert knob.read_text() == "60"


def test_what_an_endless_program_changed_is_undone(machine: HostMachine, knob: Path) -> None:
    with pytest.raises(WorkloadError, match="no end after"):
        machine.execute(["python3", "-c", CHANGER, os.fspath(knob), "endless"], timeout=3)
    assert knob.read_text() == "60"


def test_what_cannot_be_undone_stops_the_measuring(
    machine: HostMachine, knob: Path, tmp_path: Path
) -> None:
    stubborn = CHANGER.replace("end = ", "os.unlink(sys.argv[1]); os.mkdir(sys.argv[1]); end = ")
    with pytest.raises(HarnessError, match="left this machine changed: ") as caught:
        machine.execute(["python3", "-c", stubborn, os.fspath(knob), "killed"], timeout=60)
    assert caught.value.hint == "hyperbox doctor --repair"
    laboratory = HostLaboratory(project=tmp_path)
    with pytest.raises(HarnessError, match="a killed run left this machine changed"):
        laboratory.source(HOST, _experiment())
    knob.rmdir()  # gone, and the change with it
    source = laboratory.source(HOST, _experiment())
    with source.fresh() as fresh:
        assert fresh.execute(["true"], timeout=20).status == 0


@pytest.mark.root
def test_dmesg_holds_only_what_came_while_it_was_measured(machine: HostMachine) -> None:
    before = machine.artifacts().dmesg
    Path("/dev/kmsg").write_text("hyperbox test message\n")
    fresh = machine.artifacts().dmesg
    assert "hyperbox test message" not in before
    assert "hyperbox test message" in fresh
    assert len(fresh.splitlines()) < 50


def test_the_fingerprint_names_kernel_and_load(tmp_path: Path) -> None:
    environment = HostLaboratory(project=tmp_path).source(HOST, _experiment()).environment()
    assert environment["kernel"] == {"label": HOST, "release": os.uname().release}
    host = environment["host"]
    assert isinstance(host, dict)
    assert {"cpu", "cpus", "kernel", "load", "memory_kib"} <= host.keys()


def test_host_was_not_booted_for_an_experiment(tmp_path: Path) -> None:
    wanted = replace(_experiment(), machine=MachineRequest(commandline="psi=0"))
    with pytest.raises(KernelFeatureMissing, match="not booted with psi=0"):
        HostLaboratory(project=tmp_path).source(HOST, wanted)
