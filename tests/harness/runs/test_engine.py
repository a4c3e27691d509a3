"""Cells run on any executor; crashes, full disks and interruptions lose nothing."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hyperbox.errors import BootTimeout, GuestCrash, HarnessError, KernelFeatureMissing, MachineLost
from hyperbox.harness.declarations import load_suites
from hyperbox.harness.lab.host import HOST, HostLaboratory
from hyperbox.harness.lab.machine import Artifacts, CommandResult
from hyperbox.harness.model import Cell, Experiment, Lane, Outcome, Perturbation
from hyperbox.harness.runs.attempt import AttemptState
from hyperbox.harness.runs.costs import Cost, CostBook
from hyperbox.harness.runs.engine import run_plan, unfinished
from hyperbox.harness.runs.events import (
    AttemptRecorded,
    BlockMeasured,
    CellResumed,
    CellStarted,
    Event,
)
from hyperbox.harness.runs.loading import load_run
from hyperbox.harness.runs.plan import Plan, make_plan
from hyperbox.harness.runs.store import RunStore
from hyperbox.processes import spawn, stop

_SUITE = """
id = "{suite}"
title = "A tiny suite"

[[experiment]]
id = "{suite}.work"
title = "Deterministic work"
program = ["sh", "work.sh", "{{arm}}", "{suite}"]
changes_machine = false
blocks = 8
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

# A shell: what starts hundreds of times need not be a Python.
_WORK = """
value=$((1000 + HYPERBOX_SEED % 97))
[ "$1" = on ] && value=$((value - 100 - HYPERBOX_SEED % 7))
echo "{\\"metrics\\": {\\"time\\": $value}, \\"notes\\": {\\"suite\\": \\"$2\\"}}"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with two tiny suites and their program."""
    top = tmp_path / "project"
    for suite in ("one", "two"):
        directory = top / "suites" / suite
        directory.mkdir(parents=True)
        (directory / "suite.toml").write_text(_SUITE.format(suite=suite))
    (top / "work.sh").write_text(_WORK)
    return top


def _plan(project: Path, kernels: Sequence[str] = (HOST,), lane: Lane = Lane.HOST) -> Plan:
    return make_plan(load_suites(project / "suites"), kernels=kernels, lane=lane, seed=1)


def _store(directory: Path, plan: Plan) -> RunStore:
    asked: dict[str, Any] = dict.fromkeys(("modules", "blocks", "suites"))
    asked |= {"names": [], "kernels": list(plan.kernels), "allow_host_changes": False}
    return RunStore.create(
        directory,
        plan,
        target="host",
        asked=asked,
        versions={"hyperbox": "0"},
        environment={},
    )


def _values(store: RunStore, plan: Plan) -> dict[str, list[tuple[int, int, str, str, float]]]:
    """Return every cell's samples that count."""
    found = {}
    for cell in plan.cells():
        record = store.latest(cell)
        samples = record.samples() if record is not None else ()
        found[cell.key] = [(s.block, s.position, s.arm, s.metric, s.value) for s in samples]
    return found


def _run(plan: Plan, laboratory: Any, store: RunStore, workers: int = 2) -> list[Event]:
    events: list[Event] = []
    with concurrent.futures.ThreadPoolExecutor(workers) as executor:
        run_plan(plan, laboratory, store, executor, listen=events.append)
    return events


def test_a_plan_is_measured_recorded_and_judged(project: Path, tmp_path: Path) -> None:
    plan = _plan(project)
    store = _store(tmp_path / "run", plan)
    events = _run(plan, HostLaboratory(project=project), store)
    run = load_run(store.directory)
    assert [verdict.outcome for verdict in run.verdicts] == [Outcome.PASS, Outcome.PASS]
    assert {len(cell.samples) for cell in run.cells} == {16}
    assert sum(isinstance(event, BlockMeasured) for event in events) == 16
    assert unfinished(plan, store) == ()
    again = _run(plan, HostLaboratory(project=project), store)
    assert {type(event) for event in again} == {CellResumed}


def test_processes_do_as_well_as_threads(project: Path, tmp_path: Path) -> None:
    plan = _plan(project)
    threads, processes = _store(tmp_path / "a", plan), _store(tmp_path / "b", plan)
    _run(plan, HostLaboratory(project=project), threads)
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        run_plan(plan, HostLaboratory(project=project), processes, executor)
    assert _values(threads, plan) == _values(processes, plan)
    assert len(_values(threads, plan)["host--one.work--host"]) == 16


def test_the_longest_cells_begin_first_and_their_order_changes_no_result(
    project: Path, tmp_path: Path
) -> None:
    suites = load_suites(project / "suites")
    plan = make_plan(suites, kernels=["6.1", "7.3"], lane=Lane.FAST, seed=1, blocks=2)
    plain, orders = _store(tmp_path / "plain", plan), []
    _run(plan, _DyingLaboratory(project, ()), plain, workers=1)
    assert len(_values(plain, plan)) == 4
    for number, order in enumerate(itertools.permutations(plan.cells())):
        if number not in (0, 23):  # the plan's and its reverse
            continue
        book = CostBook(tmp_path / f"costs {number}")
        for seconds, cell in enumerate(reversed(order)):
            book.keep(cell, Cost(8, False, seconds, 1.0, 1.0, 0.0))
        store = _store(tmp_path / f"run {number}", plan)
        events: list[Event] = []
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            laboratory = _DyingLaboratory(project, ())
            run_plan(plan, laboratory, store, executor, listen=events.append, costs=book)
        begun = tuple(event.cell for event in events if isinstance(event, CellStarted))
        assert begun == order
        orders.append(begun)
        assert _values(store, plan) == _values(plain, plan)
        assert load_run(store.directory).verdicts == load_run(plain.directory).verdicts
        kept = book.of(plan.cells())
        assert {cost.blocks for cost in kept.values()} == {2}
        assert max(cost.seconds for cost in kept.values()) > 0
        assert {cost.cpu_seconds for cost in kept.values()} == {0.0}  # not the planted ones
    assert len(set(orders)) == 2


def test_blocks_stop_when_every_gate_is_settled(project: Path, tmp_path: Path) -> None:
    path = project / "suites" / "one" / "suite.toml"
    path.write_text(path.read_text().replace("blocks = 8", "blocks = 32"))
    plan = make_plan(
        load_suites(project / "suites"), names=["one"], kernels=[HOST], lane=Lane.HOST, seed=1
    )
    store = _store(tmp_path / "run", plan)
    _run(plan, HostLaboratory(project=project), store)
    assert len(_values(store, plan)["host--one.work--host"]) == 16


@pytest.mark.parametrize(
    ("program", "state", "reason"),
    [
        (
            "echo no luck >&2; exit 1",
            AttemptState.FAILED,
            "of block 0: exit status 1: no luck",
        ),
        ("echo hello", AttemptState.FAILED, "last line of output is not JSON"),
        ("kill -9 $$", AttemptState.FAILED, "killed by signal 9"),
        ('echo \'{"skip": "no zram"}\'; exit 77', AttemptState.SKIPPED, "no zram"),
    ],
)
def test_a_failing_program_is_a_record_and_not_tried_again(
    project: Path, tmp_path: Path, program: str, state: AttemptState, reason: str
) -> None:
    (project / "broken.sh").write_text(program)
    path = project / "suites" / "one" / "suite.toml"
    path.write_text(path.read_text().replace("work.sh", "broken.sh"))
    plan = _plan(project)
    store = _store(tmp_path / "run", plan)
    _run(plan, HostLaboratory(project=project), store)
    broken, whole = plan.cells()
    (record,) = store.records(broken)
    assert record.state is state
    assert reason in record.document["reason"]
    outcomes = {verdict.gate: verdict.outcome for verdict in load_run(store.directory).verdicts}
    expected = Outcome.SKIP if state is AttemptState.SKIPPED else Outcome.ERROR
    assert outcomes == {"one.faster": expected, "two.faster": Outcome.PASS}
    assert len(_values(store, plan)[whole.key]) == 16


class _DyingMachine:
    """A machine that is a real process and really dies: a shell that runs commands."""

    def __init__(self, project: Path, planned: Iterator[bool], fingerprint: str) -> None:
        self._project = project
        self._planned = planned
        self._fingerprint = fingerprint
        self.process = spawn(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=project)

    def execute(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        start: Perturbation | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> CommandResult:
        if next(self._planned, False):
            self.process.kill()
        assert start is not None
        command = f"HYPERBOX_SEED={start.seed} {' '.join(argv)}; echo end $?\n"
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        lines: list[bytes] = []
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(command.encode())
            self.process.stdin.flush()
            for line in self.process.stdout:
                if line.startswith(b"end "):
                    return CommandResult(int(line.split()[1]), b"".join(lines), b"")
                lines.append(line)
        if self._fingerprint:
            raise GuestCrash("the guest crashed", fingerprint=self._fingerprint)
        raise MachineLost("the machine went away")

    def put(self, path: str, data: bytes) -> None:
        raise NotImplementedError

    def get(self, path: str) -> bytes:
        raise NotImplementedError

    def artifacts(self) -> Artifacts:
        return Artifacts(f"console of {self.process.pid}\n", "", "", taint=0)


class _DyingLaboratory:
    """Machines of the kernel "weak" die when `planned` says so."""

    lane = Lane.FAST

    def __init__(self, project: Path, planned: Sequence[bool], fingerprint: str = "") -> None:
        self._project = project
        self._planned = iter(planned)
        self._fingerprint = fingerprint
        self.machines: list[_DyingMachine] = []

    def source(self, kernel: str, experiment: Experiment, lane: Lane) -> Any:
        planned = self._planned if kernel == "weak" else iter(())
        laboratory = self

        class Source:
            @contextlib.contextmanager
            def fresh(self) -> Iterator[_DyingMachine]:
                machine = _DyingMachine(laboratory._project, planned, laboratory._fingerprint)
                laboratory.machines.append(machine)
                try:
                    yield machine
                finally:
                    stop(machine.process)

            def environment(self) -> Mapping[str, object]:
                return {"kernel": {"label": kernel}}

            def close(self) -> None:
                pass

        return Source()

    def fingerprint(self, kernel: str, experiment: Experiment, lane: Lane) -> Mapping[str, object]:
        return {"kernel": {"label": kernel}}

    def labels(self) -> Sequence[str]:
        return ("weak", "strong")

    def close(self) -> None:
        pass


def _crashes(project: Path, tmp_path: Path, planned: list[bool], name: str = "") -> RunStore:
    plan = make_plan(
        load_suites(project / "suites"),
        names=["one"],
        kernels=["weak", "strong"],
        lane=Lane.FAST,
        seed=1,
    )
    store = _store(tmp_path / "run", plan)
    laboratory = _DyingLaboratory(project, planned, name)
    _run(plan, laboratory, store)
    assert all(machine.process.returncode is not None for machine in laboratory.machines)
    return store


def test_a_machine_that_dies_once_is_tried_again(project: Path, tmp_path: Path) -> None:
    store = _crashes(project, tmp_path, [False] * 5 + [True], "oops: do_swap_page")
    cell = Cell("weak", "one.work", Lane.FAST)
    first, second = store.records(cell)
    assert first.state is AttemptState.FAILED
    assert first.document["fingerprint"] == "oops: do_swap_page"
    assert first.document["error"] == "GuestCrash"
    assert len(first.document["blocks"]) == 2
    assert (first.directory / "serial.log").read_text().startswith("console of ")
    assert second.state is AttemptState.MEASURED
    strong = store.latest(Cell("strong", "one.work", Lane.FAST))
    assert strong is not None
    assert len(second.samples()) == len(strong.samples()) == 16
    outcomes = [verdict.outcome for verdict in load_run(store.directory).verdicts]
    assert outcomes == [Outcome.PASS, Outcome.PASS]


def test_a_machine_that_always_dies_is_an_error_and_costs_no_other_cell(
    project: Path, tmp_path: Path
) -> None:
    store = _crashes(project, tmp_path, [True] * 99)
    assert len(store.records(Cell("weak", "one.work", Lane.FAST))) == 2
    weak, strong = load_run(store.directory).verdicts
    assert (weak.kernel, weak.outcome) == ("weak", Outcome.ERROR)
    assert "the machine went away" in weak.reason
    assert (strong.kernel, strong.outcome) == ("strong", Outcome.PASS)


@pytest.mark.parametrize(
    ("error", "attempts", "state"),
    [
        (BootTimeout("no agent"), 2, AttemptState.FAILED),
        (HarnessError("preparation failed"), 2, AttemptState.FAILED),
        (KernelFeatureMissing("no zram"), 1, AttemptState.SKIPPED),
        (ValueError("a bug"), 1, AttemptState.FAILED),
    ],
)
def test_a_source_that_fails_is_a_record(
    project: Path, tmp_path: Path, error: Exception, attempts: int, state: AttemptState
) -> None:
    class Laboratory(HostLaboratory):
        def source(self, kernel: str, experiment: Experiment, lane: Lane = Lane.HOST) -> Any:
            if experiment.id == "one.work":
                raise error
            return super().source(kernel, experiment, lane)

    plan = _plan(project)
    store = _store(tmp_path / "run", plan)
    _run(plan, Laboratory(project=project), store)
    broken, whole = plan.cells()
    records = store.records(broken)
    assert len(records) == attempts
    assert {record.state for record in records} == {state}
    assert ("Traceback" in records[0].document["trace"]) == isinstance(error, ValueError)
    assert len(_values(store, plan)[whole.key]) == 16


@pytest.mark.root
def test_a_full_disk_stops_the_run_and_it_can_be_resumed(project: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=True)
    try:
        plan = _plan(project)
        store = _store(disk / "run", plan)
        filler = disk / "filler"
        filler.write_bytes(b"x" * 28_000)
        with pytest.raises(HarnessError, match="No space left"):
            _run(plan, HostLaboratory(project=project), store, workers=1)
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        assert not list(disk.glob("run/cells/*/.attempt-*"))
        _run(plan, HostLaboratory(project=project), store)
        whole = _store(tmp_path / "whole", plan)
        _run(plan, HostLaboratory(project=project), whole)
        assert _values(store, plan) == _values(whole, plan)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_interruption_ends_machines_and_the_run_can_be_resumed(
    project: Path, tmp_path: Path
) -> None:
    path = project / "suites" / "two" / "suite.toml"
    path.write_text(path.read_text().replace("work.sh", "slow.sh"))
    (project / "slow.sh").write_text("sleep 600")
    plan = _plan(project)
    store = _store(tmp_path / "run", plan)

    def interrupt(event: Event) -> None:
        if isinstance(event, AttemptRecorded):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    began = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        concurrent.futures.ThreadPoolExecutor(2) as executor,
    ):
        run_plan(plan, HostLaboratory(project=project), store, executor, listen=interrupt)
    assert time.monotonic() - began < 300
    one, two = plan.cells()
    assert store.latest(one) is not None
    assert store.records(two) == ()
    (project / "slow.sh").write_text(_WORK)
    _run(plan, HostLaboratory(project=project), store)
    assert unfinished(plan, store) == ()


_DRIVER = textwrap.dedent(
    """
    import concurrent.futures, sys
    from pathlib import Path
    from hyperbox.harness.lab.host import HostLaboratory
    from hyperbox.harness.runs.engine import run_plan
    from hyperbox.harness.runs.store import RunStore

    store = RunStore.open(Path(sys.argv[1]))
    with store.exclusive(), concurrent.futures.ThreadPoolExecutor(2) as executor:
        laboratory = HostLaboratory(project=Path(sys.argv[2]))
        run_plan(store.info().plan, laboratory, store, executor)
    """
)


@pytest.mark.parametrize("delays", [(0.35, 0.7, 1.0), (0.5, 0.9, 1.3)])
def test_kill_at_random_points_then_resume_equals_the_uninterrupted_run(
    project: Path, tmp_path: Path, delays: tuple[float, ...]
) -> None:
    plan = _plan(project)
    whole, killed = _store(tmp_path / "whole", plan), _store(tmp_path / "killed", plan)
    _run(plan, HostLaboratory(project=project), whole)
    command = [sys.executable, "-c", _DRIVER, os.fspath(killed.directory), os.fspath(project)]
    for delay in delays:
        process = subprocess.Popen(command, start_new_session=True)
        time.sleep(delay)
        process.kill()
        process.wait()
        for path in killed.directory.glob("cells/*/attempt-*/record.json"):
            json.loads(path.read_text())
    subprocess.run(command, check=True)
    assert _values(killed, plan) == _values(whole, plan)
    assert not list(killed.directory.glob("cells/*/.attempt-*"))
    verdicts = [load_run(store.directory).verdicts for store in (killed, whole)]
    assert verdicts[0] == verdicts[1]
