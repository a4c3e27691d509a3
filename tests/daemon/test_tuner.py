"""The tuner in the daemon: reported, alone on its machine, and everything put back at the end."""

from __future__ import annotations

import asyncio
import fcntl
import json
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prometheus_client import Metric
from starlette.requests import Request

from hyperbox.daemon.service import ServiceState
from hyperbox.daemon.services.pressure import PressureService
from hyperbox.daemon.services.pressure_answer import SCHEMA, Sampling, answer
from hyperbox.daemon.services.tuner import TunerListener
from hyperbox.errors import HyperboxError, WorkloadError
from hyperbox.linux.pressure import Missing, PressureMissing, system_files
from hyperbox.memory.psi import PressureHistory, PressureSample
from hyperbox.memory.tuner import TunerStatus
from hyperbox.memory.tuning import TunerOptions
from tests.daemon.conftest import PATIENCE_S, by_command, daemon, has_pressure
from tests.daemon.test_lifetime import refused

FIELDS = "avg10=0.00 avg60=0.00 avg300=0.00 total=7"


@has_pressure
def test_dry_run_is_shown_counted_and_logged(tmp_path: Path) -> None:
    with by_command(tmp_path / "s", "--dry-run", "--interval", "1") as running:
        with running.client() as client:
            answer = client.get("/metrics/memory/psi").json()
            deadline = time.monotonic() + PATIENCE_S
            while not answer["tuner"]["reason"] and time.monotonic() < deadline:
                answer = client.get("/metrics/memory/psi").json()
            jsonschema.validate(answer, SCHEMA)
            metrics = client.get("/metrics").text
        assert answer["tuner"]["mode"] == "dry-run"
        assert answer["tuner"]["dry_run"] is True
        assert {step["name"] for step in answer["tuner"]["steps"]} >= {"swappiness", "fast-swap"}
        assert answer["tuner"]["decisions"] or answer["tuner"]["state"] == "normal"
        assert "hyperbox_tuner_dry_run 1.0" in metrics
        assert 'hyperbox_tuner_state{hyperbox_tuner_state="normal"}' in metrics
        assert running.end() == 0
        logged = running.said("tuner")
        assert len(logged) >= len(answer["tuner"]["decisions"])
        assert {record["mode"] for record in logged} <= {"dry-run"}


@has_pressure
def test_a_tuner_that_has_not_stepped_yet_is_as_the_schema_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERBOX_STATE", str(tmp_path / "changes"))
    pressure = {}
    for file in system_files():
        pressure[file.resource] = file.read()
        file.close()
    listener = TunerListener(TunerOptions())  # it changes nothing before its first step
    try:
        tuner = listener.report()
    finally:
        listener.close()
    assert tuner["mode"] == "tune"
    said = answer(PressureSample(1, 0, 1.0, pressure), PressureHistory(), Sampling(5.0), tuner, 0)
    jsonschema.validate(json.loads(json.dumps(said)), SCHEMA)


@has_pressure
def test_second_tuner_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERBOX_STATE", str(tmp_path))
    with (tmp_path / "tuner.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        code, said = refused("--tune", "--socket", str(tmp_path / "s"), "--listen", "none")
    assert code == 3
    assert any("a tuner runs already, as process 4711" in line for line in said)
    assert not (tmp_path / "s").exists()


TUNES = """
import sys, time
from pathlib import Path
from hyperbox.daemon import composition, lifetime
from hyperbox.daemon.listeners import Address
from hyperbox.daemon.logs import configure
from hyperbox.daemon.options import DaemonOptions
from hyperbox.daemon.services.pressure import PressureService

class Listener:
    def sampled(self, snapshot):
        knob.write_text("ours")
        time.sleep({step_s})
    def report(self):
        return {{"mode": "tune"}}
    def metrics(self):
        return ()
    def close(self):
        knob.write_text("original")

knob = Path({knob!r})
configure()
lifetime.services = lambda options: (PressureService(listener=Listener, interval_s=0.01),)
sys.exit(lifetime.run(DaemonOptions(listen=(Address("127.0.0.1", 0),))))
"""


@has_pressure
@pytest.mark.parametrize("step_s", [0.0, 1.5])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_changed_is_put_back(
    tmp_path: Path, step_s: float, number: signal.Signals
) -> None:
    knob = tmp_path / "knob"
    knob.write_text("original")
    program = TUNES.format(step_s=step_s, knob=str(knob))
    with daemon(["-c", program], None) as running:
        deadline = time.monotonic() + PATIENCE_S
        while knob.read_text() != "ours":  # in the middle of a step, where steps take long
            assert time.monotonic() < deadline
        assert running.end(number) == (1 if number is signal.SIGINT else 0)
        assert knob.read_text() == "original"
        late = running.said("a step of the tuner takes long")
        assert len(late) == (1 if step_s else 0)


class Listener:
    """A listener that fails when it is asked to."""

    def __init__(self, sampled: Exception | None = None, close: Exception | None = None) -> None:
        self.errors: Mapping[str, Exception | None] = {"sampled": sampled, "close": close}
        self.closed = 0

    def sampled(self, _snapshot: PressureHistory) -> None:
        self._fail("sampled")

    def report(self) -> Mapping[str, object]:
        return {"mode": "tune", **TunerStatus().as_json()}

    def metrics(self) -> Iterable[Metric]:
        return ()

    def close(self) -> None:
        self.closed += 1
        self._fail("close")

    def _fail(self, what: str) -> None:
        error = self.errors[what]
        if error is not None:
            raise error


@pytest.fixture
def service(tmp_path: Path) -> Callable[[Listener], PressureService]:
    for resource in ("cpu", "memory", "io"):
        (tmp_path / resource).write_text(f"some {FIELDS}\nfull {FIELDS}\n")
    return lambda listener: PressureService(tmp_path, interval_s=0.01, listener=lambda: listener)


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(WorkloadError("cgroup is gone"), "cgroup is gone"), (KeyError("x"), "a bug: KeyError('x')")],
)
def test_sampling_survives_its_tuner(
    service: Callable[[Listener], PressureService], error: Exception, reason: str
) -> None:
    listener = Listener(sampled=error)
    tuned = service(listener)
    tuned.start()
    until(lambda: tuned.status().state is ServiceState.FAILED)
    assert tuned.status().reason == f"the tuner has ended: {reason}"
    until(lambda: listener.closed)
    said = asyncio.run(answered(tuned))
    jsonschema.validate(said, SCHEMA)
    assert said["tuner"]["mode"] == "ended"
    assert said["tuner"]["reason"] == f"the tuner has ended: {reason}"
    names = {family.name for family in tuned.metrics()}
    assert "node_pressure_memory_waiting_seconds" in names
    tuned.stop()
    assert tuned.status().state is ServiceState.FAILED


async def answered(service: PressureService) -> Any:
    scope = {"type": "http", "query_string": b"", "headers": []}
    (endpoint,) = service.endpoints()
    return json.loads(bytes((await endpoint.answer(Request(scope))).body))


def test_tuner_without_pressure_costs_no_reading(tmp_path: Path) -> None:
    for resource in ("cpu", "memory", "io"):
        (tmp_path / resource).write_text(f"some {FIELDS}\nfull {FIELDS}\n")

    def lacking() -> Listener:
        raise PressureMissing(
            "pressure is unavailable: switched off in this cgroup", why=Missing.DISABLED, hint="on"
        )

    service = PressureService(tmp_path, interval_s=0.01, listener=lacking)
    service.start()
    until(lambda: {family.name for family in service.metrics()})
    said = asyncio.run(answered(service))
    jsonschema.validate(said, SCHEMA)
    assert (said["available"], said["some_memory_us"]) == (True, 7)
    assert said["tuner"] == {
        "mode": "unavailable",
        "reason": "pressure is unavailable: switched off in this cgroup",
        "hint": "on",
    }
    assert service.status().state is ServiceState.RUNNING
    service.stop()


def test_what_cannot_be_put_back_is_said(service: Callable[[Listener], PressureService]) -> None:
    stuck = service(Listener(close=WorkloadError("read-only")))
    stuck.start()
    with pytest.raises(HyperboxError, match="read-only"):
        stuck.stop()


def test_service_that_never_started_stops_and_answers(tmp_path: Path) -> None:
    service = PressureService(tmp_path / "nothing")
    service.stop()
    assert service.status().state is ServiceState.STOPPED
    assert list(service.metrics()) == []
