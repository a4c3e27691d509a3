"""Recorder on user notification: every call of the container waits until it has been counted.

The last resort, where there is neither BPF nor audit: nothing can be lost, but each call takes two
switches of processes, and what the filter denies is not seen. The runtime sends the filter's
descriptor to a socket (OCI runtime specification, ``listenerPath``).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from hyperbox.errors import HyperboxError, WorkloadError
from hyperbox.isolation.families import FLOOR
from hyperbox.isolation.profile import FilterAction, Profile
from hyperbox.isolation.recorder import called, recorded
from hyperbox.isolation.recording import Recording
from hyperbox.isolation.watching import watched
from hyperbox.linux.seccomp import answer_continue, next_notification
from hyperbox.linux.syscalls import Abi

__all__ = ["NotifyRecorder"]

_UNWATCHED = (FLOOR - {"exit_group"}) | {
    "clone",
    "epoll_create1",
    "epoll_pwait",
    "eventfd2",
    "pipe2",
}
"""Calls that are let through unseen, and count as used.

The runtime's own threads are under the filter before its descriptor is sent. A thread of runc (Go)
that waited for an answer there could keep the one that sends it from running for ever. The end of a
program is watched, which says what it was.
"""
_LONGEST_MESSAGE = 1 << 16


class NotifyRecorder:
    """Records a container that runs under `profile`; see `hyperbox.isolation.recorder`.

    Parameters
    ----------
    directory
        Where the socket is made; it goes with the directory.
    default, known
        As `hyperbox.isolation.audit_recorder.AuditRecorder` has them.
    """

    name = "notify"

    def __init__(
        self, directory: Path, default: Profile, known: frozenset[str] = frozenset()
    ) -> None:
        self._path = directory / "notify"
        self.profile = replace(
            watched(default, FilterAction.NOTIFY, known | _UNWATCHED),
            listener=os.fspath(self._path),
        )
        self._known = known
        self._seen: Counter[tuple[int, int, str]] = Counter()
        self._failed = 0
        self._listening: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._end = -1

    def __enter__(self) -> NotifyRecorder:
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listening.bind(os.fspath(self._path))
        except OSError as error:  # a path of more than 107 bytes too (unix(7)), without an errno
            self._listening.close()
            raise WorkloadError(
                f"socket {self._path}: {error.strerror or error}",
                hint="choose a shorter HYPERBOX_STATE",
            ) from error
        self._path.chmod(0o600)
        self._listening.listen(16)
        waiting, self._end = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, args=(waiting,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
        if self._thread is not None:
            self._thread.join()
        if self._listening is not None:
            self._listening.close()
            self._path.unlink(missing_ok=True)

    def recording(self, ended: str) -> Recording:
        """Return what was seen; when learning, calls that are never watched count as seen."""
        calls = {called(architecture, number) for architecture, number, _ in list(self._seen)}
        if not self._known:
            calls |= {(Abi.X86_64, name) for name in _UNWATCHED}
        return recorded(
            calls,
            programs={program for _, _, program in list(self._seen)},
            lost=self._failed,
            ended=ended,
            back_end=self.name,
        )

    def denials(self) -> Mapping[str, frozenset[str]]:
        """Return the programs of every call that was watched for, by the call's name."""
        found: dict[str, set[str]] = {}
        for architecture, number, program in list(self._seen):
            found.setdefault(called(architecture, number)[1], set()).add(program)
        return {name: frozenset(programs) for name, programs in sorted(found.items())}

    def _serve(self, waiting: int) -> None:
        assert self._listening is not None
        poll = select.poll()
        for descriptor in (self._listening.fileno(), waiting):
            poll.register(descriptor, select.POLLIN)
        filters: set[int] = set()
        try:
            while True:
                for descriptor, events in poll.poll():
                    if descriptor == waiting:
                        return
                    if descriptor == self._listening.fileno():
                        for new in self._received():
                            filters.add(new)
                            poll.register(new, select.POLLIN)
                    elif not (events & select.POLLIN and self._answered(descriptor)):
                        poll.unregister(descriptor)  # its last task has ended, or it failed
                        filters.discard(descriptor)
                        os.close(descriptor)
        finally:
            for descriptor in (*filters, waiting):
                os.close(descriptor)

    def _received(self) -> list[int]:
        """Return the descriptors that a runtime sends; none if it is not one."""
        assert self._listening is not None
        connection, _ = self._listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5.0)
            return list(socket.recv_fds(connection, _LONGEST_MESSAGE, 4)[1])
        return []

    def _answered(self, descriptor: int) -> bool:
        """Count a call and let it go on; return whether more can follow."""
        try:
            notification = next_notification(descriptor)
            if notification is not None:
                program = _program(notification.pid)
                self._seen[notification.architecture, notification.number, program] += 1
                answer_continue(descriptor, notification)
        except HyperboxError:
            self._failed += 1  # the task gets ENOSYS for this call when the descriptor is closed
            return False
        return True


def _program(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.fspath(Path(f"/proc/{pid}/exe").readlink())
    return ""
