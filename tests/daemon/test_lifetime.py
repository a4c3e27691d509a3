"""How daemons start and end: signals, sockets taken and stale, slow clients, no pressure."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.daemon.conftest import PATIENCE_S, PROJECT, Daemon, by_command, by_options, has_pressure

UNIT = PROJECT / "packaging" / "hyperbox.service"


def refused(*options: str) -> tuple[int, list[str]]:
    """Run a daemon that cannot start; return its exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "hyperbox", "daemon", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
        timeout=PATIENCE_S,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
)
def test_signal_ends_it_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    path = tmp_path / "own" / "hyperbox.sock"
    with by_command(path) as running:
        mode = path.lstat().st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o660)
        with running.client(unix=True) as client:
            assert client.get("/healthz").status_code == 200
        assert running.end(number) == code
        assert [record["signal"] for record in running.said("stopping")] == [number.name]
        assert [record["service"] for record in running.said("service stopped")] == ["pressure"]
        assert not path.exists()


def test_clients_that_hang_on_do_not_keep_it(tmp_path: Path) -> None:
    with by_command(tmp_path / "s") as running, contextlib.ExitStack() as stack:
        for data in (
            b"",
            b"GET / HTTP/1.1\r\nHo",
            b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 99,
        ):
            wire = socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S)
            stack.enter_context(wire)
            wire.sendall(data)
        asked = time.monotonic()
        assert running.end() == 0
        # The promise is a second; the bound leaves service for a machine that is busy.
        assert time.monotonic() - asked < 10


def test_many_signals_are_one(tmp_path: Path) -> None:
    with by_command(tmp_path / "s") as running:
        for _ in range(4):
            running.process.send_signal(signal.SIGTERM)
        assert running.end() == 0
        assert len(running.said("stopping")) == 1


def test_second_daemon_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with by_command(path) as running:
        code, said = refused("--socket", str(path), "--listen", "none")
        assert (code, said[0]) == (3, f"hyperbox: error: another daemon serves {path}")
        assert said[1].startswith("hint: ")
        code, said = refused("--socket", "none", "--listen", f"127.0.0.1:{running.port}")
        assert code == 3
        assert said[0].startswith(f"hyperbox: error: cannot listen on 127.0.0.1:{running.port}: ")
        assert len(said) == 2
        with running.client(unix=True) as client:
            assert client.get("/").status_code == 200
    assert path.exists()  # it was killed: the next one clears up
    with by_command(path) as running, running.client(unix=True) as client:
        assert client.get("/").status_code == 200


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    code, said = refused("--socket", str(path), "--listen", "none")
    assert (code, said[0]) == (3, f"hyperbox: error: {path} is there and is not a socket")
    assert path.read_text() == "data"


def test_other_machines_are_let_in_only_when_asked(tmp_path: Path) -> None:
    code, said = refused("--socket", "none", "--listen", "0.0.0.0:0")
    assert code == 64
    assert said[1] == "hint: listen on 127.0.0.1, or allow it with --allow-remote"
    options = ["--listen", "0.0.0.0:0", "--allow-remote"]
    with by_command(tmp_path / "s", *options) as running:
        assert httpx.get(running.url, timeout=PATIENCE_S).status_code == 200


@pytest.mark.parametrize("abstract", [False, True])
def test_supervisor_is_told(tmp_path: Path, abstract: bool) -> None:
    name = f"@hyperbox-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + name[1:] if abstract else name)
        channel.settimeout(PATIENCE_S)
        with by_command(tmp_path / "s", environment={"NOTIFY_SOCKET": name}) as running:
            ready = channel.recv(4096).decode().splitlines()
            assert ready[0] == "READY=1"
            assert ready[1].startswith("STATUS=serving http://127.0.0.1:")
            assert running.end() == 0
            assert channel.recv(4096) == b"STOPPING=1"


def test_absent_supervisor_is_no_reason_to_stop(tmp_path: Path) -> None:
    gone = {"NOTIFY_SOCKET": str(tmp_path / "gone")}
    with by_command(tmp_path / "s", environment=gone) as running:
        assert running.end() == 0
        assert running.said("supervisor not notified")


def dropped(running: Daemon, act: Callable[[socket.socket], None]) -> None:
    """Assert that a connection is ended by the daemon while it goes on answering others."""

    def behave() -> None:
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(PATIENCE_S)
            wire.connect(str(running.socket))
            with contextlib.suppress(ConnectionError):
                act(wire)

    with ThreadPoolExecutor(1) as pool, running.client() as client:
        future = pool.submit(behave)
        while not future.done():
            assert client.get("/healthz").status_code == 200
            time.sleep(0.02)
        future.result()


def says_nothing(wire: socket.socket) -> None:
    assert wire.recv(1) == b""


def trickles(wire: socket.socket) -> None:
    wire.settimeout(0.02)
    for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 10_000:
        wire.sendall(bytes([byte]))
        with contextlib.suppress(TimeoutError):
            assert wire.recv(1) == b""
            return
    raise AssertionError("never dropped")


def trickles_a_body(wire: socket.socket) -> None:
    wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n")
    wire.settimeout(0.02)
    for _ in range(60_000):
        wire.sendall(b"x")
        with contextlib.suppress(TimeoutError):
            if wire.recv(65_536) == b"":
                return
    raise AssertionError("never dropped")


def never_reads(wire: socket.socket) -> None:
    """Ask for more than buffers hold and read nothing: the other end goes."""
    wire.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
    hangup = select.poll()
    hangup.register(wire, 0)  # POLLHUP is always shown
    assert hangup.poll(PATIENCE_S * 1000)


@pytest.mark.parametrize("act", [says_nothing, trickles, trickles_a_body, never_reads])
def test_slow_clients_are_dropped_and_hold_nobody(
    tmp_path: Path, act: Callable[[socket.socket], None]
) -> None:
    limits = "ConnectionLimits(receive_s=0.3, send_s=0.3, keep_alive_s=1)"
    with by_options("", limits, socket=tmp_path / "s") as running:
        dropped(running, act)
        assert running.end() == 0


def test_too_many_connections_are_told_so() -> None:
    with (
        by_options("", "ConnectionLimits(connections=3)") as running,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(3):
            stack.enter_context(running.client()).get("/healthz").raise_for_status()
        answer = stack.enter_context(running.client()).get("/healthz")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["connection"] == "close"


def silent(stack: contextlib.ExitStack, port: int, number: int) -> list[socket.socket]:
    """Connect many times and say nothing."""
    address = ("127.0.0.1", port)
    return [stack.enter_context(socket.create_connection(address)) for _ in range(number)]


def settled(wires: list[socket.socket], open_at_last: int) -> None:
    """Wait until all but some of the connections have been dropped."""

    def dropped() -> int:
        return len(select.select(wires, [], [], 0)[0])

    deadline = time.monotonic() + PATIENCE_S
    while dropped() < len(wires) - open_at_last:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert dropped() == len(wires) - open_at_last


def settled_again(running: Daemon) -> None:
    """Wait until it has noticed that clients are gone, and serves."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with running.client() as client, contextlib.suppress(httpx.TransportError):
            if client.get("/healthz").status_code == 200:
                return
    raise AssertionError("it serves nobody")


def test_connections_that_say_nothing_do_not_use_up_its_files(tmp_path: Path) -> None:
    with by_options("", "ConnectionLimits(connections=3)", socket=tmp_path / "s") as running:
        with contextlib.ExitStack() as stack:
            settled(silent(stack, running.port, 50), 6)
            with running.client(unix=True) as client:  # its places are its own
                assert client.get("/healthz").status_code == 200
        settled_again(running)
        assert running.end() == 0
        assert {record["level"] for record in running.log} == {"info"}


def test_few_descriptors_are_few_connections_and_a_short_log(tmp_path: Path) -> None:
    with by_options("", socket=tmp_path / "s", files=64) as running:
        with contextlib.ExitStack() as stack:
            wires = silent(stack, running.port, 181)
            for _ in range(20):
                with running.client(unix=True) as client:
                    assert client.get("/metrics").status_code == 200
            assert select.select(wires, [], [], PATIENCE_S)[0]
        assert running.end() == 0
        assert {record["level"] for record in running.log} == {"info"}


def test_without_a_descriptor_clients_wait_and_the_log_says_so_once(tmp_path: Path) -> None:
    with by_options("", socket=tmp_path / "s") as running, contextlib.ExitStack() as stack:
        pid, limit = running.process.pid, resource.RLIMIT_NOFILE
        taken = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        before = resource.prlimit(pid, limit, (taken, 1024))
        silent(stack, running.port, 20)
        assert running.process.stderr is not None
        said = running.process.stderr.readline()
        assert "cannot accept connections" in said
        assert "Too many open files" in said
        time.sleep(2.5)  # it tries again in the meantime
        resource.prlimit(pid, limit, before)
        with running.client() as client:
            assert client.get("/healthz").status_code == 200
        assert running.end() == 0
        assert not running.said("cannot accept connections")


@pytest.mark.root
def test_root_finds_a_place_when_others_have_taken_all(tmp_path: Path) -> None:
    path = tmp_path / "s"
    nobody = (
        "import os, socket, sys, time\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "wires = [socket.socket(socket.AF_UNIX) for _ in range(40)]\n"
        "for wire in wires: wire.connect('s')\n"
        "print(flush=True); sys.stdin.read()\n"
    )
    with by_options("", "ConnectionLimits(connections=3)", socket=path) as running:
        for place in (path, tmp_path):
            place.chmod(0o777)
        # It starts in the directory: those above may be closed to it.
        argv, pipe = [sys.executable, "-c", nobody], subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, cwd=tmp_path) as others:
            assert others.stdout is not None
            assert others.stdout.readline() == b"\n"
            with running.client(unix=True) as client:
                assert client.get("/healthz").status_code == 200
            others.communicate()


def test_without_pressure_it_serves_and_says_why(tmp_path: Path) -> None:
    with by_options(f"pressure=Path({str(tmp_path)!r})") as running, running.client() as client:
        answer = client.get("/metrics/memory/psi")
        assert answer.status_code == 200
        assert answer.json()["available"] is False
        assert "absent" in answer.json()["reason"]
        assert answer.json()["hint"] == "boot a kernel with CONFIG_PSI=y and psi=1"
        health = client.get("/healthz")
        assert (health.status_code, health.json()["ready"]) == (200, True)
        assert health.json()["services"]["pressure"]["state"] == "unavailable"
        metrics = client.get("/metrics").text
        assert 'hyperbox_service_up{service="pressure"} 0.0' in metrics
        assert "node_pressure" not in metrics
        assert running.end() == 0


def test_pressure_that_goes_wrong_later_is_a_failure(tmp_path: Path) -> None:
    for name in ("cpu", "memory", "io"):
        fields = "avg10=0.00 avg60=0.00 avg300=0.00 total=7"
        (tmp_path / name).write_text(f"some {fields}\nfull {fields}\n")
    with by_options(f"pressure=Path({str(tmp_path)!r}), interval_s=0.05") as running:
        with running.client() as client:
            assert client.get("/metrics/memory/psi").json()["full_memory_us"] == 7
            (tmp_path / "memory").write_text("nonsense\n")
            deadline = time.monotonic() + PATIENCE_S
            while (health := client.get("/healthz")).status_code == 200:
                assert time.monotonic() < deadline
            assert health.status_code == 503
            assert health.json()["ready"] is False
            assert health.json()["services"]["pressure"]["state"] == "failed"
            assert "no line of pressure" in health.json()["services"]["pressure"]["reason"]
            assert client.get("/metrics/memory/psi").json()["available"] is False
            assert 'hyperbox_service_up{service="pressure"} 0.0' in client.get("/metrics").text
        assert running.end() == 0


@has_pressure
def test_log_lines_are_pairs_and_quiet(tmp_path: Path) -> None:
    with by_command(tmp_path / "s") as running:
        with running.client() as client:
            for path in ("/", "/nothing", "/metrics"):
                client.get(path)
        assert running.end() == 0
        assert [record["event"] for record in running.log] == [
            "service started",
            "listening",
            "listening",
            "stopping",
            "service stopped",
        ]
        assert {record["level"] for record in running.log} == {"info"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize(("drop_ins", "exposure"), [((), 12), (("tune.conf",), 35)])
def test_unit_is_one_that_systemd_takes_and_as_closed_as_it_says(
    tmp_path: Path, drop_ins: tuple[str, ...], exposure: int
) -> None:
    unit = tmp_path / UNIT.name
    _installed(UNIT, unit)
    for name in drop_ins:
        _installed(UNIT.with_name(name), tmp_path / f"{UNIT.name}.d" / name)
    done = _analysed("verify", "--man=no", str(unit))
    own = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, own) == (0, [])
    # Tenths of the score; 0.9 and 3.2 by systemd 252, of 9.6 for a unit without a sandbox.
    done = _analysed("security", "--offline=yes", f"--threshold={exposure}", str(unit))
    assert done.returncode == 0, done.stdout


def _installed(source: Path, place: Path) -> None:
    text = source.read_text().replace("/usr/bin/hyperbox", sys.executable)
    assert sys.executable in text
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)


def _analysed(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_index_is_readable_by_json_alone(tmp_path: Path) -> None:
    with by_command(tmp_path / "s") as running, running.client(unix=True) as client:
        assert "/metrics/memory/psi" in json.loads(client.get("/").content)["endpoints"]
