"""The agent: PID 1 of every guest, serving frames on a virtio-serial port.

It runs commands, moves files and answers pings; it decides nothing. One thread and one
poll loop, standard library only. Console output stays on ttyS0.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hyperbox.harness.lab.protocol import CHUNK, PORT_NAME, Frame, FrameDecoder, FrameType

__all__ = ["Agent", "find_port", "main"]

_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "PYTHONHASHSEED": "0",
}


@dataclass
class _Job:
    """A running command: its streams that are still open, and its end."""

    id: int
    pid: int
    streams: dict[int, FrameType] = field(default_factory=dict)
    late: bool = False
    status: int | None = None


def find_port(name: str, *, directory: Path = Path("/sys/class/virtio-ports")) -> Path:
    """Give the device of the virtio-serial port called `name`.

    Raises
    ------
    FileNotFoundError
        If no port has that name.
    """
    for port in sorted(directory.glob("*")):
        if (port / "name").read_text().strip() == name:
            return Path("/dev") / port.name
    raise FileNotFoundError(f"no virtio port named {name}")


class Agent:
    """Serves one connection, given as a file descriptor that reads and writes bytes."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._decoder = FrameDecoder()
        self._jobs: dict[int, _Job] = {}
        self._stream_owner: dict[int, _Job] = {}
        self._uploads: dict[int, IO[bytes] | OSError] = {}
        self._delayed: dict[int, tuple[int, Frame]] = {}
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._wake, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll.register(self._wake, select.POLLIN)

    def serve(self, *, forever: bool = True) -> None:
        """Announce readiness and serve; `forever` goes on when nobody is connected."""
        release = os.uname().release
        ready = {"release": release, "monotonic_ns": time.monotonic_ns()}
        self._send(FrameType.READY, 0, json.dumps(ready).encode())
        while True:
            for handle, _ in self._poll.poll():
                if handle == self._channel:
                    if not self._receive() and not forever:
                        return
                elif handle == self._wake:
                    self._reap()
                elif handle in self._delayed:
                    self._start_delayed(handle)
                else:
                    self._forward(handle)

    def _send(self, kind: FrameType, request: int, payload: bytes = b"") -> None:
        view = memoryview(Frame(kind, request, payload).encode())
        while view:
            view = view[os.write(self._channel, view) :]

    def _receive(self) -> bool:
        data = os.read(self._channel, CHUNK)
        if not data:
            time.sleep(0.05)  # the host side is not connected: poll would spin
            return False
        for frame in self._decoder.feed(data):
            self._handle(frame)
        return True

    def _handle(self, frame: Frame) -> None:
        if frame.type is FrameType.PING:
            self._send(FrameType.PING, frame.id, struct.pack("<Q", time.monotonic_ns()))
        elif frame.type is FrameType.EXECUTE:
            self._execute(frame)
        elif frame.type is FrameType.KILL:
            if frame.id in self._jobs:
                os.killpg(self._jobs[frame.id].pid, signal.SIGKILL)
        elif frame.type is FrameType.PUT:
            self._open_upload(frame)
        elif frame.type is FrameType.DATA:
            self._write_upload(frame)
        elif frame.type is FrameType.END:
            self._close_upload(frame.id)
        elif frame.type is FrameType.GET:
            self._download(frame)

    def _execute(self, frame: Frame) -> None:
        """Start at an absolute CLOCK_MONOTONIC time, so that no arrival jitter is left."""
        start_ns = int(frame.json().get("start_ns", 0))
        if start_ns <= time.monotonic_ns():
            self._spawn(frame, late=start_ns > 0)
            return
        timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]
        os.timerfd_settime_ns(timer, flags=os.TFD_TIMER_ABSTIME, initial=start_ns)  # type: ignore[attr-defined,unused-ignore]
        self._delayed[timer] = (timer, frame)
        self._poll.register(timer, select.POLLIN)

    def _start_delayed(self, handle: int) -> None:
        timer, frame = self._delayed.pop(handle)
        self._poll.unregister(timer)
        os.close(timer)
        self._spawn(frame)

    def _spawn(self, frame: Frame, *, late: bool = False) -> None:
        order = frame.json()
        argv = [str(word) for word in order["argv"]]
        environment = _ENVIRONMENT | dict(order.get("environment", {}))
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.posix_spawnp(
                argv[0],
                argv,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, out_write, 1),
                    (os.POSIX_SPAWN_DUP2, err_write, 2),
                ],
                setsid=True,
            )
        except OSError as error:
            os.close(out_read)
            os.close(err_read)
            message = f"{argv[0]}: {error.strerror}"
            self._send(FrameType.EXIT, frame.id, json.dumps({"error": message}).encode())
            return
        finally:
            os.close(out_write)
            os.close(err_write)
        streams = {out_read: FrameType.STDOUT, err_read: FrameType.STDERR}
        job = _Job(frame.id, pid, streams, late)
        self._jobs[frame.id] = job
        for stream in job.streams:
            os.set_blocking(stream, False)
            self._stream_owner[stream] = job
            self._poll.register(stream, select.POLLIN)

    def _forward(self, stream: int) -> None:
        job = self._stream_owner.get(stream)
        if job is None:  # closed by an earlier event of the same poll
            return
        try:
            data = os.read(stream, CHUNK)
        except BlockingIOError:
            return
        if data:
            self._send(job.streams[stream], job.id, data)
            return
        self._close_stream(job, stream)
        self._finish(job)

    def _close_stream(self, job: _Job, stream: int) -> None:
        self._poll.unregister(stream)
        os.close(stream)
        del job.streams[stream]
        del self._stream_owner[stream]

    def _reap(self) -> None:
        os.read(self._wake, 4096)
        by_pid = {job.pid: job for job in self._jobs.values()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in by_pid:
                by_pid[pid].status = status
                self._finish(by_pid[pid])

    def _finish(self, job: _Job) -> None:
        """Report the end when the process is gone, with what its pipes still hold.

        Descendants may keep the pipes open for ever: they do not hold up the report.
        """
        if job.status is None:
            return
        for stream in list(job.streams):
            try:
                while data := os.read(stream, CHUNK):
                    self._send(job.streams[stream], job.id, data)
            except BlockingIOError:
                pass
            self._close_stream(job, stream)
        del self._jobs[job.id]
        end = {"status": os.waitstatus_to_exitcode(job.status), "late": job.late}
        self._send(FrameType.EXIT, job.id, json.dumps(end).encode())

    def _open_upload(self, frame: Frame) -> None:
        path = Path(frame.payload.decode())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._uploads[frame.id] = path.open("wb")
        except OSError as error:
            self._uploads[frame.id] = error

    def _write_upload(self, frame: Frame) -> None:
        target = self._uploads.get(frame.id)
        if target is None or isinstance(target, OSError):
            return
        try:
            target.write(frame.payload)
        except OSError as error:
            self._uploads[frame.id] = error

    def _close_upload(self, request: int) -> None:
        target = self._uploads.pop(request, None)
        try:
            if isinstance(target, OSError):
                raise target
            if target is not None:
                target.close()
        except OSError as error:
            self._send(FrameType.END, request, str(error).encode())
        else:
            self._send(FrameType.END, request)

    def _download(self, frame: Frame) -> None:
        error = b""
        try:
            with Path(frame.payload.decode()).open("rb", buffering=0) as stream:
                while data := stream.read(CHUNK):
                    self._send(FrameType.DATA, frame.id, data)
        except OSError as failure:
            error = str(failure).encode()
        self._send(FrameType.END, frame.id, error)


def main() -> None:
    """Find the port and serve until the machine ends; a crash panics the kernel (PID 1)."""
    for _ in range(1000):
        try:
            port = find_port(PORT_NAME)
            break
        except (FileNotFoundError, NotADirectoryError):
            time.sleep(0.01)
    else:
        raise SystemExit(f"no virtio port named {PORT_NAME}")
    Agent(os.open(port, os.O_RDWR | os.O_CLOEXEC)).serve()


if __name__ == "__main__":
    main()
