"""The product's daemon as a process, and a client of its unix socket.

Its packages are those of the Python that runs this; guests have them by the layer `daemon`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import hyperbox
from hyperbox.errors import WorkloadError
from hyperbox.processes import spawn, stop

__all__ = ["Daemon", "HttpAnswer", "running_daemon"]

_PROJECT = Path(hyperbox.__file__).resolve().parent.parent
_LISTENING = "event=listening"
_PATIENCE_S = 120.0  # until something is called stuck; guests are slow


@dataclass(frozen=True)
class HttpAnswer:
    """What the daemon said."""

    status: int
    kind: str
    body: str


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE_S)
        self.sock.connect(os.fspath(self._path))


@dataclass
class Daemon:
    """A daemon that listens; `log` is what it has said so far."""

    process: subprocess.Popen[bytes]
    path: Path
    log: list[str] = field(default_factory=list)

    def get(self, path: str) -> HttpAnswer:
        """Ask for a path on a connection of its own."""
        connection = _Connection(self.path)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            kind = answer.headers.get("Content-Type", "")
            return HttpAnswer(answer.status, kind, answer.read().decode())
        except (OSError, http.client.HTTPException) as error:
            raise WorkloadError(f"the daemon did not answer {path}: {error}") from error
        finally:
            connection.close()

    def end(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit status and the seconds until the end."""
        began = time.monotonic()
        os.kill(self.process.pid, signal.SIGTERM)
        status = self.process.wait(_PATIENCE_S)
        return status, time.monotonic() - began


@contextlib.contextmanager
def running_daemon(
    options: Sequence[str] = (), variables: Mapping[str, str] | None = None
) -> Iterator[Daemon]:
    """Start the daemon and give it when it listens; it is killed at the end of the block.

    `variables` are added to its environment.

    Raises
    ------
    WorkloadError
        If it does not start, with the end of its log: this Python may lack its packages.
    """
    environment = {"PYTHONPATH": os.fspath(_PROJECT), **(variables or {})}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "socket"
        argv = [sys.executable, "-m", "hyperbox", "daemon", "--listen", "none"]
        process = spawn(
            [*argv, "--socket", path, *options], environment=environment, stderr=subprocess.PIPE
        )
        daemon = Daemon(process, path)
        listening = threading.Event()
        reader = threading.Thread(target=_collect, args=(daemon, listening), name="daemon's log")
        reader.start()
        try:
            listening.wait(_PATIENCE_S)
            if not any(_LISTENING in line for line in daemon.log):
                raise WorkloadError(f"the daemon did not start: {' '.join(daemon.log[-3:])}")
            yield daemon
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            reader.join()
            stop(process)


def _collect(daemon: Daemon, listening: threading.Event) -> None:
    """Keep the log's lines until the daemon ends."""
    assert daemon.process.stderr is not None
    for line in daemon.process.stderr:
        daemon.log.append(line.decode(errors="replace").strip())
        if _LISTENING in daemon.log[-1]:
            listening.set()
    listening.set()
