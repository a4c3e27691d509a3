"""A service in a process of its own: asked over its socket, started again, left, found again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from hyperbox.daemon.process_service import Privileges, ProcessService
from hyperbox.daemon.service import ServiceState
from hyperbox.errors import ConfigError, HarnessError
from tests.daemon.conftest import PATIENCE_S, PROJECT, Daemon, daemon
from tests.daemon.test_supervision import children, eventually

NOTES = "tests.daemon.notes_service:NotesService"
ENVIRONMENT = {"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}
PROGRAM = """
import sys
from pathlib import Path
from hyperbox.daemon.listeners import Address, tcp_listener
from hyperbox.daemon.logs import configure
from hyperbox.daemon.process_service import ProcessService
from hyperbox.daemon.server import serve
from hyperbox.daemon.service_group import ServiceGroup
configure()
notes = ProcessService({notes!r}, Path({path!r}), outlives={outlives}, environment={environment})
with tcp_listener(Address("127.0.0.1", 0)) as listener, ServiceGroup([notes]) as group:
    serve(group, [listener])
"""
PLAIN = {"content-type": "text/plain"}


def served(path: Path, *, outlives: bool) -> contextlib.AbstractContextManager[Daemon]:
    """Run a daemon whose service has a process and a socket of its own."""
    values = {"notes": NOTES, "path": str(path), "outlives": outlives, "environment": ENVIRONMENT}
    return daemon(["-c", PROGRAM.format(**values)], None)


def worker(path: Path) -> httpx.Client:
    """Return a client of the service's own process."""
    transport = httpx.HTTPTransport(uds=str(path), verify=False)
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=PATIENCE_S)


def pid_of(path: Path) -> int:
    """Return the number of the service's process, once it answers."""

    def ask() -> Any:
        with worker(path) as client, contextlib.suppress(httpx.TransportError):
            return client.get("/healthz").json()["pid"]

    return int(eventually(ask))


def gone(pid: int) -> None:
    """Wait for the end of a process, which may be reaped by others."""

    def ended() -> bool:
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"

    eventually(ended)


def killed(path: Path) -> bool:
    """Kill whoever has the path as an argument; say whether there was anybody."""
    found = False
    for one in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            words = (one / "cmdline").read_bytes().split(b"\0")
            if os.fsencode(path) in words:
                os.kill(int(one.name), signal.SIGKILL)
                found = True
    return found


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where a process serves that outlives its daemon, but not the test."""
    made = tmp_path / "notes.sock"
    yield made
    # Supervisors have it as an argument too: their program's.
    eventually(lambda: not killed(made))


def test_requests_are_passed_on_with_method_body_and_query(tmp_path: Path) -> None:
    path = tmp_path / "own" / "notes.sock"
    with served(path, outlives=False) as running, running.client() as client:
        assert client.put("/notes/a%2Bb", content="text", headers=PLAIN).status_code == 204
        with worker(path) as direct:
            assert direct.get("/notes").json() == client.get("/notes").json() == ["a+b"]
        assert client.get("/notes/a%2Bb").text == "text"
        assert client.get("/notes/a").status_code == 404
        assert client.get("/notes/a").json()["detail"] == "no such note"
        assert client.get("/notes?x=1").status_code == 400
        assert client.post("/notes", content="x", headers=PLAIN).status_code == 415
        assert client.patch("/notes").headers["allow"] == "GET, HEAD, POST"
        health = client.get("/healthz").json()
        assert health["services"] == {"notes": {"state": "running"}}
        assert health["pid"] == running.process.pid != pid_of(path)
        metrics = client.get("/metrics").text
        assert "\nnotes 1.0\n" in metrics
        assert metrics.count("\nprocess_open_fds ") == 1
        assert client.delete("/notes/a%2Bb").status_code == 204
        pid = pid_of(path)
        assert running.end() == 0
        gone(pid)
        assert not path.exists()


def test_killed_process_comes_back_with_what_it_held(tmp_path: Path) -> None:
    path = tmp_path / "notes.sock"
    with served(path, outlives=False) as running, running.client() as client:
        for name in ("kept", "dropped"):
            client.put(f"/notes/{name}", content=name, headers=PLAIN)
        client.delete("/notes/dropped")
        pid = pid_of(path)
        os.kill(pid, signal.SIGKILL)
        gone(pid)
        eventually(lambda: client.get("/healthz").status_code == 200)
        assert pid_of(path) != pid
        assert client.get("/notes").json() == ["kept"]
        assert client.get("/notes/kept").text == "kept"
        ours = [*children(running.process.pid), pid_of(path)]
        running.process.kill()
        running.process.wait()
        for one in ours:
            gone(one)


def test_process_that_outlives_the_daemon_is_found_by_the_next(path: Path) -> None:
    with served(path, outlives=True) as running, running.client() as client:
        client.put("/notes/a", content="held", headers=PLAIN)
        pid = pid_of(path)
        (supervisor,) = children(running.process.pid)
        assert int(path.with_suffix(".lock").read_text()) == supervisor
        running.process.kill()
        running.process.wait()
    assert pid_of(path) == pid
    os.kill(pid, signal.SIGKILL)  # nobody but its supervisor is there
    gone(pid)
    # This daemon comes while the process is away: it must not start another supervisor.
    with served(path, outlives=True) as running, running.client() as client:
        assert client.get("/notes/a").text == "held"
        assert children(running.process.pid) == []
        assert running.end() == 0
    with worker(path) as direct:
        assert direct.get("/notes/a").text == "held"
    os.kill(pid_of(path), signal.SIGTERM)
    gone(supervisor)
    assert not path.exists()


def test_a_process_that_hangs_does_not_keep_the_daemon(path: Path) -> None:
    try:
        with served(path, outlives=True) as running, running.client() as client:
            pid = pid_of(path)
            os.kill(pid, signal.SIGSTOP)
            health = client.get("/healthz")
            assert (health.status_code, health.json()["live"]) == (503, True)
            reason = health.json()["services"]["notes"]["reason"]
            assert reason == "its process does not answer"
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(client.get, "/notes")
                asked = time.monotonic()
                assert running.end() == 0
                # An answer may take 30 s; the bound leaves room for a machine that is busy.
                assert time.monotonic() - asked < 20
                with contextlib.suppress(httpx.TransportError):
                    assert waiting.result().status_code == 503
    finally:
        os.kill(pid, signal.SIGCONT)
        os.kill(pid_of(path), signal.SIGTERM)
        gone(int(path.with_suffix(".lock").read_text()))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ProcessService]:
    made = ProcessService(NOTES, tmp_path / "notes.sock", environment=ENVIRONMENT)
    yield made
    made.stop()


def test_status_is_that_of_its_process(service: ProcessService, tmp_path: Path) -> None:
    assert service.status().state is ServiceState.STOPPED
    assert list(service.metrics()) == []
    service.start()
    assert service.status().state is ServiceState.RUNNING
    assert [family.name for family in service.metrics()] == ["notes"]
    service.stop()
    assert service.status().state is ServiceState.STOPPED
    service.stop()  # harmless


def test_supervisor_that_is_late_leaves_the_process_to_the_first(
    service: ProcessService, tmp_path: Path
) -> None:
    path = tmp_path / "notes.sock"
    service.start()
    with worker(path) as direct:  # its supervisor keeps a descriptor from now on
        direct.put("/notes/a", content="held", headers=PLAIN)
    pid, holder = pid_of(path), path.with_suffix(".lock").read_text()
    late = tmp_path / "late"
    late.mkdir()
    (late / "sitecustomize.py").write_text("import time; time.sleep(4)\n")
    environment = ENVIRONMENT | {"PYTHONPATH": f"{late}:{PROJECT}"}
    second = ProcessService(NOTES, path, environment=environment)
    os.kill(pid, signal.SIGKILL)
    gone(pid)
    second.start()
    assert path.with_suffix(".lock").read_text() == holder
    second.stop()  # it has nothing to end
    assert service.status().state is ServiceState.RUNNING


def test_process_that_cannot_start_is_an_error(service: ProcessService, tmp_path: Path) -> None:
    (tmp_path / "notes.sock").write_text("in the way")
    with pytest.raises(HarnessError, match="the process of notes ended with status 3"):
        service.start()


@pytest.mark.root
@pytest.mark.parametrize(
    ("privileges", "uid", "capabilities"),
    [
        (Privileges("nobody", ()), 65534, 0),
        (Privileges("nobody", ("sys_admin",)), 65534, 1 << 21),
        (Privileges(None, ("sys_admin", "dac_override")), 0, 1 << 21 | 1 << 1),
    ],
)
def test_process_has_the_privileges_that_it_is_given(
    privileges: Privileges, uid: int, capabilities: int
) -> None:
    place = Path(f"/run/hyperbox-test-{os.getpid()}")
    path = place / "notes.sock"
    service = ProcessService(NOTES, path, privileges=privileges, environment=ENVIRONMENT)
    try:
        service.start()
        text = Path(f"/proc/{pid_of(path)}/status").read_text()
        status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert {*status["Uid"].split()} == {str(uid)}
        assert {int(status[name], 16) for name in ("CapEff", "CapBnd")} == {capabilities}
        assert status["NoNewPrivs"] == "1"
    finally:
        service.stop()
        shutil.rmtree(place)


def test_unknown_user_is_bad_usage() -> None:
    with pytest.raises(ConfigError, match=r"no user nobody-there|only root's daemon"):
        Privileges("nobody-there").words(outlives=False)


def test_a_service_without_privileges_of_its_own_has_the_daemons() -> None:
    assert Privileges().words(outlives=True) == ()
