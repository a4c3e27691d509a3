"""A service that runs as a process of its own, with its own privileges and its own life.

The daemon starts the process, asks it over a unix socket, and passes requests on. A supervisor
(`hyperbox.daemon.supervisor`) starts it again when it dies and keeps its descriptors meanwhile.
One that *outlives* the daemon goes on when that ends or is killed; the next daemon finds it by
its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from hyperbox.daemon.service import Endpoint, ServiceState, Status
from hyperbox.daemon.supervisor import TAKEN
from hyperbox.daemon.worker import load
from hyperbox.errors import ConfigError, HarnessError
from hyperbox.processes import spawn, stop

__all__ = ["Privileges", "ProcessService"]

_START_S, _STOP_S = 20.0, 8.0  # the second is more than the supervisor's patience
_STATUS_S, _ANSWER_S = 1.0, 30.0  # to wait for a health check, and for an answer
_OWN = ("hyperbox_build", "hyperbox_service_up", "process_")  # of the daemon, not of a service
_PASSED = ("accept", "content-type")
_PASSED_BACK: Sequence[str] = ("content-type", "vary", "allow", "accept", "location", "retry-after")


@dataclass(frozen=True)
class Privileges:
    """What a process may: as which user, and with which capabilities (``sys_admin``), if fewer.

    None leaves the daemon's.
    """

    user: str | None = None
    capabilities: Sequence[str] | None = None

    def words(self, *, outlives: bool) -> Sequence[str]:
        """Return the words before a command that give it these privileges, by setpriv(1).

        Raises
        ------
        ConfigError
            If there is no such user, or the daemon may not give them.
        """
        if self.user is None and self.capabilities is None:
            return ()
        if os.geteuid() != 0:
            raise ConfigError(
                "only root's daemon can give a service privileges of its own",
                hint="run the service as a unit of its own: python3 -m hyperbox.daemon.worker",
            )
        words = ["setpriv", "--no-new-privs"]
        if not outlives:  # a change of user forgets the one that was set before (prctl(2))
            words += ["--pdeathsig", "KILL"]
        if self.user is not None:
            group = str(self.account().pw_gid)
            words += ["--reuid", self.user, "--regid", group, "--init-groups"]
        if self.capabilities is not None:
            kept = ",".join(["-all", *(f"+{name}" for name in self.capabilities)])
            words += [f"--{kind}-caps={kept}" for kind in ("inh", "ambient")]
            words.append(f"--bounding-set={kept}")
        return [*words, "--"]

    def account(self) -> pwd.struct_passwd:
        """Return the user's account; ConfigError if there is none."""
        try:
            return pwd.getpwnam(self.user) if self.user else pwd.getpwuid(os.geteuid())
        except KeyError:
            raise ConfigError(f"there is no user {self.user}") from None


class ProcessService:
    """Stands in the daemon for a service in another process.

    Parameters
    ----------
    reference
        ``MODULE:CLASS`` that makes the service; here it is asked for its endpoints only.
    socket_path
        Where its process serves; the directory is its user's, and its log lies there if it
        outlives the daemon.
    outlives
        Whether it goes on when the daemon ends.
    environment
        More variables for its process.
    """

    def __init__(
        self,
        reference: str,
        socket_path: Path,
        *,
        privileges: Privileges | None = None,
        outlives: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        service = load(reference)
        self.name = service.name
        self._reference = reference
        self._socket = socket_path
        self._privileges = privileges or Privileges()
        self._outlives = outlives
        self._environment = environment
        self._endpoints = [replace(e, answer=self._pass_on) for e in service.endpoints()]
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._asked: set[_Connection] = set()
        self._started = False

    def start(self) -> None:
        """Find the process that an earlier daemon has left, or start one.

        Raises
        ------
        HyperboxError
            If it cannot be started, or does not answer.
        """
        self._started = True
        if self._ask("GET", "/healthz", timeout=_STATUS_S) is None:
            self._launch()

    def stop(self) -> None:
        """End the process, unless it outlives the daemon.

        Raises
        ------
        HarnessError
            If it does not end, or says that it could not put something back.
        """
        self._started = False
        for connection in list(self._asked):  # whoever waits for an answer would keep the daemon
            connection.give_up()
        if self._supervisor is None or self._outlives:
            return
        status = self._ended(self._supervisor)
        if status != 0:
            raise HarnessError(f"the process of {self.name} ended with status {status}")

    def status(self) -> Status:
        """Say what its process says of it."""
        if not self._started:
            return Status(ServiceState.STOPPED)
        answer = self._ask("GET", "/healthz", timeout=_STATUS_S)
        try:
            said = json.loads(answer[2] if answer else b"")["services"][self.name]
            return Status(ServiceState(said["state"]), said.get("reason", ""), said.get("hint", ""))
        except (ValueError, KeyError):
            return Status(ServiceState.FAILED, "its process does not answer")

    def endpoints(self) -> Sequence[Endpoint]:
        """Return its endpoints, which pass requests on."""
        return self._endpoints

    def metrics(self) -> Iterable[Metric]:
        """Return its families, and none of its process."""
        answer = self._ask("GET", "/metrics", timeout=_STATUS_S)
        if answer is None:
            return
        for family in text_string_to_metric_families(answer[2].decode()):
            if not family.name.startswith(_OWN):
                yield family

    def _launch(self) -> None:
        directory = self._socket.parent
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        privileges = self._privileges.words(outlives=self._outlives)
        if self._privileges.user is not None:
            account = self._privileges.account()
            os.chown(directory, account.pw_uid, account.pw_gid)
        lock = self._socket.with_suffix(".lock")
        supervisor = [sys.executable, "-m", "hyperbox.daemon.supervisor", "--lock", os.fspath(lock)]
        if self._outlives:
            supervisor.append("--outlive")
        worker = [sys.executable, "-m", "hyperbox.daemon.worker", self._reference]
        with self._log() as log:
            self._supervisor = spawn(
                [*supervisor, "--", *privileges, *worker, "--socket", self._socket],
                environment=self._environment,
                stderr=log,
                outlives=self._outlives,
            )
        deadline = time.monotonic() + _START_S
        # An answer may be the other one's while our supervisor has not looked at the lock yet: it
        # would start the program again after that one has ended.
        while (
            (status := self._supervisor.poll()) is None
            and _holder(lock) != str(self._supervisor.pid)
        ) or self._ask("GET", "/healthz", timeout=_STATUS_S) is None:
            if status not in (None, TAKEN):  # taken: the other one's program is about to answer
                self._supervisor = None
                raise HarnessError(
                    f"the process of {self.name} ended with status {status}; its log says more"
                )
            if time.monotonic() > deadline:
                self._ended(self._supervisor)
                raise HarnessError(f"the process of {self.name} does not answer")
            time.sleep(0.02)
        if self._supervisor.poll() == TAKEN:
            self._supervisor = None

    def _ended(self, supervisor: subprocess.Popen[bytes]) -> int:
        """End a process with its supervisor; return its exit status."""
        self._supervisor = None
        supervisor.terminate()
        try:
            return supervisor.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            stop(supervisor)
            raise HarnessError(f"the process of {self.name} did not end") from None

    @contextlib.contextmanager
    def _log(self) -> Iterator[int]:
        """Return where its process logs: with the daemon, or in a file beside its socket.

        One that outlives the daemon would keep a pipe open that others read to its end.
        """
        if not self._outlives:
            yield sys.stderr.fileno()
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(self._socket.with_suffix(".log"), flags, 0o640)
        try:
            yield handle
        finally:
            os.close(handle)

    async def _pass_on(self, request: Request) -> Response:
        path, query = request.scope["raw_path"], request.scope["query_string"]
        target = (path + (b"?" + query if query else b"")).decode("ascii")
        body = await request.body()
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        answer = await asyncio.to_thread(self._ask, request.method, target, body, headers)
        if answer is None:
            raise HTTPException(503, f"the process of {self.name} does not answer")
        status, found, content = answer
        return Response(content, status, found)

    def _ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = _ANSWER_S,
    ) -> tuple[int, Mapping[str, str], bytes] | None:
        """Return status, headers and body of an answer; None without one."""
        connection = _Connection(self._socket, timeout)
        self._asked.add(connection)
        if not self._started:  # looked at after, so that `stop` misses nobody
            connection.give_up()
        try:
            connection.request(method, target, body or None, dict(headers or {}))
            answer = connection.getresponse()
            found = {name: answer.getheader(name) for name in _PASSED_BACK}
            kept = {name: value for name, value in found.items() if value is not None}
            return answer.status, kept, answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            self._asked.discard(connection)
            connection.close()


def _holder(lock: Path) -> str:
    """Return the number of the process that has the lock, or had it last."""
    with contextlib.suppress(OSError):
        return lock.read_text(errors="replace").strip()
    return ""


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._given_up = False

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))
        if self._given_up:
            raise ConnectionAbortedError

    def give_up(self) -> None:
        """Let another thread that waits for an answer find the end of it."""
        self._given_up = True
        with contextlib.suppress(OSError, AttributeError):  # not connected yet, or closed by now
            self.sock.shutdown(socket.SHUT_RDWR)
