"""Starts a program again when it dies, and keeps its descriptors meanwhile.

``python3 -m hyperbox.daemon.supervisor [--outlive] [--lock FILE] -- PROGRAM [ARGUMENT ...]`` does
for one program what systemd does for a unit with ``Restart=on-failure`` and a
``FileDescriptorStoreMax=``, by the same protocol (`hyperbox.daemon.descriptor_store`), so that the
program need not know which of them it has. It reads no data: there is little that could end it.

Of several supervisors with one lock the first stays, and the others end with `TAKEN`; the lock has
its number. With ``--outlive`` the program goes on when the supervisor is killed, with its own
copies of the descriptors; without, it ends with the supervisor.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hyperbox.daemon.descriptor_store import FIRST
from hyperbox.daemon.logs import configure, fields
from hyperbox.errors import HarnessError
from hyperbox.linux.exclusive_lock import exclusive_lock
from hyperbox.processes import spawn, stop

__all__ = ["TAKEN", "Supervisor", "main"]

TAKEN = 75  # EX_TEMPFAIL of sysexits.h
"""Exit status of a supervisor that finds another one at work."""

_LOG = logging.getLogger(__name__)
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_USAGE = 64  # of sysexits.h: it would be wrong again
_MOST = 128  # descriptors
_LOWEST = 256  # where our own descriptors lie: those below are the program's at its start
_LONGEST = 4096
_SHORTEST_S, _LONGEST_S = 0.1, 10.0
_PATIENCE_S = 5.0
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
# The number of the process, which only the process itself knows in time.
_ANNOUNCED = 'export LISTEN_PID=$$; exec "$@"'


class Supervisor:
    """Runs a program until it ends by itself without a fault, or a signal ends both."""

    def __init__(self, argv: Sequence[str], *, outlive: bool = False) -> None:
        self._argv = tuple(argv)
        self._outlive = outlive
        self._kept: list[tuple[str, int]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._was_ready = False
        self._ending = False
        self._channel = _raised(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._channel.setblocking(False)
        self._channel.bind("")  # an abstract address of the kernel's choice (unix(7), autobind)

    def run(self) -> int:
        """Return the program's last exit status, 128 and more for a signal."""
        with _signals() as wake:
            pause = _SHORTEST_S
            while True:
                began = time.monotonic()
                status = self._attended(wake)
                if self._ending or status in (0, _USAGE) or not self._was_ready:
                    return status
                lasted = time.monotonic() - began
                pause = _SHORTEST_S if lasted > _LONGEST_S else min(pause * 2, _LONGEST_S)
                _LOG.warning("program died", extra=fields(status=status, again_s=pause))
                self._heard(wake, pause)
                if self._ending:
                    return status

    def _attended(self, wake: int) -> int:
        """Start the program and wait for its end, and for what it sends until then."""
        self._process = process = self._start()
        deadline = float("inf")
        try:
            while process.poll() is None and time.monotonic() < deadline:
                self._heard(wake, None if deadline == float("inf") else _SHORTEST_S)
                if self._ending and deadline == float("inf"):
                    deadline = time.monotonic() + _PATIENCE_S
                    process.terminate()
        finally:
            stop(process)
        self._receive()  # what it sent last
        return process.returncode if process.returncode >= 0 else 128 - process.returncode

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the program with what is kept as its descriptors from `FIRST` on."""
        places = range(FIRST, FIRST + len(self._kept))
        for place, (_, handle) in zip(places, self._kept, strict=True):
            os.dup2(handle, place, inheritable=False)
        environment = {name: value for name, value in os.environ.items() if name != "LISTEN_PID"}
        environment |= {
            "NOTIFY_SOCKET": "@" + self._channel.getsockname()[1:].decode(),
            "LISTEN_FDS": str(len(self._kept)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in self._kept),
        }
        try:
            return spawn(
                ["sh", "-c", _ANNOUNCED, "sh", *self._argv],
                environment=environment,
                pass_fds=places,
                stdout=sys.stdout.fileno(),
                stderr=sys.stderr.fileno(),
                outlives=self._outlive,
            )
        finally:
            for place in places:
                os.close(place)

    def _heard(self, wake: int, seconds: float | None) -> None:
        """Wait for a message or a signal, and take them."""
        channel = self._channel.fileno()
        ready, _, _ = select.select([wake, channel], [], [], seconds)
        if wake in ready:
            self._ending = self._ending or bool(set(os.read(wake, 4096)) & {*_ENDING})
        if channel in ready:
            self._receive()

    def _receive(self) -> None:
        """Take all messages that have come; the program's are those of its process."""
        room = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(253 * 4)  # SCM_MAX_FD
        while True:
            try:
                data, extra, _, _ = self._channel.recvmsg(_LONGEST, room, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            sender, handles = 0, []
            for _, kind, content in extra:
                if kind == socket.SCM_CREDENTIALS:
                    sender = _CREDENTIALS.unpack(content)[0]
                else:
                    handles = list(struct.unpack(f"{len(content) // 4}i", content))
            pairs = (line.partition("=")[::2] for line in data.decode(errors="replace").split("\n"))
            said = dict(pairs) if self._process and sender == self._process.pid else {}
            self._take(said, handles)

    def _take(self, said: dict[str, str], handles: list[int]) -> None:
        self._was_ready = self._was_ready or said.get("READY") == "1"
        name = said.get("FDNAME", "stored")
        if said.get("FDSTOREREMOVE") == "1":
            for gone in [one for one in self._kept if one[0] == name]:
                self._kept.remove(gone)
                os.close(gone[1])
        elif said.get("FDSTORE") == "1" and len(self._kept) + len(handles) <= _MOST:
            self._kept += [(name, _high(handle)) for handle in handles]
            return
        for handle in handles:
            os.close(handle)


def _high(handle: int) -> int:
    """Move a descriptor out of the way of those that the program gets."""
    moved = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    os.close(handle)
    return moved


def _raised(wire: socket.socket) -> socket.socket:
    return socket.socket(fileno=_high(wire.detach()))


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """Return a descriptor that says which signals have come, SIGCHLD among them."""
    read, write = (_high(handle) for handle in os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
    signal.set_wakeup_fd(write)
    for number in (*_ENDING, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(-1)
        os.close(read)
        os.close(write)


def main() -> int:
    """Supervise the program that the arguments name; return its exit status."""
    parser = argparse.ArgumentParser(prog="hyperbox.daemon.supervisor", description=__doc__)
    parser.add_argument("--outlive", action="store_true")
    parser.add_argument("--lock", type=Path)
    parser.add_argument("program", nargs="+")
    arguments = parser.parse_args()
    configure()
    with contextlib.ExitStack() as stack:
        if arguments.lock is not None:
            try:
                lock = exclusive_lock(arguments.lock, "a supervisor", lowest=_LOWEST)
                stack.enter_context(lock)
            except HarnessError as error:
                _LOG.info("not needed", extra=fields(why=error.message))
                return TAKEN
        return Supervisor(arguments.program, outlive=arguments.outlive).run()


if __name__ == "__main__":
    sys.exit(main())
