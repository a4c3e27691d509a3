"""Real daemons as processes, and clients of them."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from hyperbox.linux.pressure import PROC_PRESSURE

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0  # until a test gives up; no assertion about speed

has_pressure = pytest.mark.skipif(
    not (PROC_PRESSURE / "memory").exists(), reason="this kernel has no pressure files"
)


class Daemon:
    """A daemon that runs, where it listens, and what it logged until then."""

    def __init__(self, process: subprocess.Popen[str], socket: Path | None) -> None:
        self.process = process
        self.socket = socket
        self.log: list[dict[str, str]] = []
        self.port = 0

    def ready(self) -> None:
        """Wait until it says where it listens, the unix socket last."""
        assert self.process.stderr is not None
        wanted = {"http://", "unix:"} if self.socket else {"http://"}
        for line in self.process.stderr:
            record = dict(pair.partition("=")[::2] for pair in shlex.split(line))
            self.log.append(record)
            address = record.get("address", "")
            if address.startswith("http://"):
                self.port = int(address.rpartition(":")[2])
            wanted -= {kind for kind in wanted if address.startswith(kind)}
            if not wanted:
                return
        raise AssertionError(f"ended with {self.process.wait()}: {self.log}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, *, unix: bool = False) -> httpx.Client:
        # Certificates take long to load, and there are none here.
        uds = os.fspath(self.socket) if unix and self.socket else None
        transport = httpx.HTTPTransport(uds=uds, verify=False)
        return httpx.Client(transport=transport, base_url=self.url, timeout=PATIENCE_S)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code; the rest of the log is read."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=PATIENCE_S)
        for line in rest.splitlines():
            self.log.append(dict(pair.partition("=")[::2] for pair in shlex.split(line)))
        return self.process.returncode

    def said(self, event: str) -> list[dict[str, str]]:
        return [record for record in self.log if record.get("event") == event]


@contextlib.contextmanager
def daemon(
    argv: Sequence[str], socket: Path | None, environment: Mapping[str, str] | None = None
) -> Iterator[Daemon]:
    """Run a daemon until the block ends."""
    process = subprocess.Popen(
        [sys.executable, *argv],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env=os.environ | dict(environment or {}),
    )
    try:
        running = Daemon(process, socket)
        running.ready()
        yield running
    finally:
        process.kill()
        process.communicate()


def by_command(
    socket: Path, *options: str, environment: Mapping[str, str] | None = None
) -> contextlib.AbstractContextManager[Daemon]:
    """Run ``hyperbox daemon`` on a socket and a port of the kernel's choice."""
    argv = ["-m", "hyperbox", "daemon", "--socket", os.fspath(socket), "--listen", "127.0.0.1:0"]
    return daemon([*argv, *options], socket, environment)


def by_options(
    options: str,
    limits: str = "ConnectionLimits()",
    *,
    socket: Path | None = None,
    files: int = 1024,
) -> contextlib.AbstractContextManager[Daemon]:
    """Run the daemon with options, limits and descriptors that the command line does not have."""
    at = f"Path({os.fspath(socket)!r})" if socket else "None"
    program = (
        "import resource, sys; from pathlib import Path\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))\n"
        "from hyperbox.daemon.connections import ConnectionLimits\n"
        "from hyperbox.daemon.listeners import Address\n"
        "from hyperbox.daemon.logs import configure\n"
        "from hyperbox.daemon.options import DaemonOptions\n"
        "from hyperbox.daemon.lifetime import run\n"
        "configure()\n"
        "here = (Address('127.0.0.1', 0),)\n"
        f"sys.exit(run(DaemonOptions(socket={at}, listen=here, {options}), {limits}))\n"
    )
    return daemon(["-c", program], socket)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests that only ask; it samples a hundred times a second."""
    socket = tmp_path_factory.mktemp("daemon") / "hyperbox.sock"
    with by_command(socket, "--interval", "0.01") as running:
        yield running
        assert running.end() == 0
        assert {record["level"] for record in running.log} == {"info"}
