"""A cell that takes too long is ended wherever it hangs, and costs no other cell."""

from __future__ import annotations

import concurrent.futures
import contextlib
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hyperbox.errors import CellTimeout, MachineLost, WorkloadError
from hyperbox.harness.lab.host import HOST, HostLaboratory
from hyperbox.harness.lab.machine import Artifacts, CommandResult
from hyperbox.harness.model import Arm, Cell, Experiment, Gate, Lane, Metric, Rule
from hyperbox.harness.runs.attempt import AttemptState
from hyperbox.harness.runs.engine import run_plan
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.record import Record
from hyperbox.harness.runs.store import RunStore
from hyperbox.harness.runs.watchdog import Watchdog
from hyperbox.processes import spawn, stop

_GATE = Gate("tiny.fine", "Fine", "1", "tiny.other", "time", Rule.AT_MOST, 1.0, "on")
_ANSWER = """echo '{"metrics": {"time": 1}}'"""


def test_what_ends_in_time_is_left_alone() -> None:
    ended: list[bool] = []
    with Watchdog(600, lambda: ended.append(True)) as watchdog:
        watchdog.check()
    assert not watchdog.expired
    assert ended == []
    with pytest.raises(WorkloadError, match="its own"), Watchdog(600, lambda: None):
        raise WorkloadError("its own fault")


def test_work_that_hangs_is_ended_again_and_again_until_it_is_left() -> None:
    ended = threading.Semaphore(0)

    def work() -> None:
        with Watchdog(0.01, ended.release):
            for _ in range(3):
                ended.acquire()
            error = MachineLost("the machine went away")
            error.console = "last words"
            raise error

    with pytest.raises(
        CellTimeout, match=r"not done after 0\.01 s .*, but getting ready"
    ) as caught:
        work()
    assert caught.value.fingerprint == "cell overdue: getting ready"
    assert caught.value.console == "last words"


def test_nothing_begins_after_the_limit() -> None:
    expired = threading.Event()

    def work() -> None:
        with Watchdog(0.01, expired.set) as watchdog:
            watchdog.doing = "measuring: on of block 3"
            assert expired.wait(60)
            watchdog.check()

    with pytest.raises(CellTimeout, match="but measuring: on of block 3") as caught:
        work()
    assert caught.value.fingerprint == "cell overdue: measuring"


def _experiment(name: str, program: str, blocks: int, limit_s: float | None = None) -> Experiment:
    return Experiment(
        id=f"tiny.{name}",
        suite="tiny",
        title=name,
        arms=(Arm("off", "untuned"), Arm("on", "tuned")),
        metrics=(Metric("time", "Time", "us"),),
        program=("sh", "-c", program, "{arm}"),
        blocks=blocks,
        changes_machine=False,
        limit_s=limit_s,
    )


def _measured(laboratory: Any, tmp_path: Path, *experiments: Experiment) -> list[list[Record]]:
    """Return the attempts at every experiment, all measured at once."""
    plan = Plan((HOST,), Lane.HOST, experiments, (_GATE,), seed=1)
    store = RunStore.create(
        tmp_path / "run",
        plan,
        target="host",
        asked=_ASKED,
        versions={"hyperbox": "0"},
        environment={},
    )
    with concurrent.futures.ThreadPoolExecutor(len(experiments)) as executor:
        run_plan(plan, laboratory, store, executor)
    cells = [Cell(HOST, experiment.id, Lane.HOST) for experiment in experiments]
    return [list(store.records(cell)) for cell in cells]


_ASKED: dict[str, Any] = {
    "names": [],
    "kernels": [HOST],
    "modules": None,
    "blocks": None,
    "suites": None,
    "allow_host_changes": False,
}


def test_many_small_steps_add_up_to_a_timeout(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    steps = f"touch {begun}; sleep 0.1; {_ANSWER}"
    waits = f"until [ -e {begun} ]; do sleep 0.1; done; sleep 0.1; {_ANSWER}"
    laboratory = HostLaboratory(project=tmp_path)
    (attempt,), (other,) = _measured(
        laboratory,
        tmp_path,
        _experiment("steps", steps, blocks=1_000_000, limit_s=5),
        _experiment("other", waits, blocks=3),
    )
    assert attempt.state is AttemptState.FAILED
    assert attempt.document["error"] == "CellTimeout"
    assert attempt.document["fingerprint"] == "cell overdue: measuring"
    assert "after 5 s" in attempt.document["reason"]
    assert len(attempt.samples()) == 2 * len(attempt.document["blocks"]) > 0
    assert other.state is AttemptState.MEASURED
    assert len(other.samples()) == 6


class _StubbornMachine:
    """A machine whose thread waits for it without a limit, as no code should."""

    def __init__(self, project: Path) -> None:
        self.process = spawn(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=project)

    def execute(self, argv: Sequence[str], **_: object) -> CommandResult:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{argv[2]}; echo end\n".encode())
        self.process.stdin.flush()
        lines: list[bytes] = []
        for line in self.process.stdout:
            if line == b"end\n":
                return CommandResult(0, b"".join(lines), b"")
            lines.append(line)
        raise MachineLost("the machine went away")

    def artifacts(self) -> Artifacts:
        return Artifacts(f"console of {self.process.pid}\n", "", "", taint=0)


class _StubbornLaboratory(HostLaboratory):
    """Gives machines that hang; with `boots` false already while they are made ready."""

    def __init__(self, project: Path, *, boots: bool = True) -> None:
        super().__init__(project=project)
        self._place = project
        self._boots = boots

    def source(self, kernel: str, experiment: Experiment, lane: Lane = Lane.HOST) -> Any:
        if not self._boots and experiment.id == "tiny.hangs":
            booting = spawn(["sleep", "600"])
            try:
                booting.wait()
            finally:
                stop(booting)
            raise MachineLost("QEMU did not start")
        place = self._place

        class Source:
            @contextlib.contextmanager
            def fresh(self) -> Iterator[_StubbornMachine]:
                machine = _StubbornMachine(place)
                try:
                    yield machine
                finally:
                    stop(machine.process)

            def environment(self) -> Mapping[str, object]:
                return {"kernel": {"label": HOST}}

            def close(self) -> None:
                pass

        return Source()


@pytest.mark.parametrize("boots", [True, False])
def test_a_thread_that_hangs_in_a_call_loses_its_own_machine_only(
    tmp_path: Path, boots: bool
) -> None:
    hung = tmp_path / "hung"
    # The other cell's machine works on until the hanging one has been ended.
    done = f"while [ ! -e {hung} ]; do sleep 0.1; done"
    (attempt,), (other,) = _measured(
        _Watched(tmp_path, hung, boots=boots),
        tmp_path,
        _experiment("hangs", "sleep 600", blocks=1, limit_s=1),
        _experiment("other", f"{done}; {_ANSWER}", blocks=1),
    )
    assert attempt.state is AttemptState.FAILED
    assert attempt.document["error"] == "CellTimeout"
    phase = "measuring" if boots else "getting ready"
    assert attempt.document["fingerprint"] == f"cell overdue: {phase}"
    if boots:
        assert (attempt.directory / "serial.log").read_text().startswith("console of ")
    assert other.state is AttemptState.MEASURED
    assert len(other.samples()) == 2


class _Watched(_StubbornLaboratory):
    """Leaves a file when the hanging experiment's machine has been ended."""

    def __init__(self, project: Path, ended: Path, *, boots: bool) -> None:
        super().__init__(project, boots=boots)
        self._ended = ended

    def source(self, kernel: str, experiment: Experiment, lane: Lane = Lane.HOST) -> Any:
        with contextlib.ExitStack() as stack:
            if experiment.id == "tiny.hangs":
                stack.callback(self._ended.touch)
            source = super().source(kernel, experiment, lane)
            if experiment.id == "tiny.hangs":
                source.close = stack.pop_all().close
            return source
