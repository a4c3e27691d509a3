"""The agent: PID 1 of every guest, serving frames on a virtio-serial port.

It runs commands, moves files and answers pings; it decides nothing. One thread and one
poll loop, standard library only. Console output stays on ttyS0.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import select
import signal
import stat
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hyperbox.errors import WorkloadError
from hyperbox.harness.lab.mailbox import Mailbox
from hyperbox.harness.lab.protocol import (
    CHUNK,
    PORT_NAME,
    PROJECT_DIRECTORY,
    Frame,
    FrameDecoder,
    FrameType,
)
from hyperbox.linux.process_tree import end_children

__all__ = ["Agent", "find_port", "main"]

_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "PYTHONHASHSEED": "0",
}
# Python ignores these; a shell's pipelines rely on the first.
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)


_MOST_IN_PIPE = 1 << 20  # bytes; pipe(7): pipe-max-size. More was written since the end.
_RESEED = 0x5207  # RNDRESEEDCRNG of linux/random.h
_Action = tuple[Any, ...]


@dataclass
class _Job:
    """A running command: its streams that are still open, and its end.

    `streams` are read, `input` (a pipe, or the terminal that is in `streams` too) is written
    with what `waiting` holds; `ended` says that no more will come.
    """

    id: int
    streams: dict[int, FrameType]
    input: int | None = None
    pid: int = 0
    status: int | None = None
    waiting: bytearray = field(default_factory=bytearray)
    ended: bool = False
    stop_after: bool = False
    started_ns: int = 0


def find_port(name: str, *, directory: Path = Path("/sys/class/virtio-ports")) -> Path:
    """Return the device of the virtio-serial port called `name`.

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
    """Serves one connection, given as a file descriptor that reads and writes bytes.

    With a `mailbox` the machine stops when it is ready, and after commands that ask for it.
    Commands start in `directory`, by default where the agent did.
    """

    def __init__(
        self, channel: int, mailbox: Mailbox | None = None, directory: str | None = None
    ) -> None:
        self._channel = channel
        self._directory = directory
        self._mailbox = mailbox
        self._decoder = FrameDecoder()
        self._jobs: dict[int, _Job] = {}
        self._stream_owner: dict[int, _Job] = {}
        self._uploads: dict[int, IO[bytes] | OSError] = {}
        self._delayed: dict[int, tuple[int, Frame]] = {}
        self._handlers: dict[FrameType, Callable[[Frame], None]] = {
            FrameType.PING: self._answer,
            FrameType.EXECUTE: self._execute,
            FrameType.KILL: self._kill,
            FrameType.STDIN: self._take_input,
            FrameType.WINDOW: self._resize,
            FrameType.PUT: self._open_upload,
            FrameType.DATA: self._write_upload,
            FrameType.END: self._close_upload,
            FrameType.GET: self._download,
        }
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
        self._stop()
        while True:
            for handle, events in self._poll.poll():
                if handle == self._channel:
                    if not self._receive() and not forever:
                        return
                elif handle == self._wake:
                    self._reap()
                elif handle in self._delayed:
                    self._start_delayed(handle)
                else:
                    self._exchange(handle, events)

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
        handler = self._handlers.get(frame.type)
        if handler is not None:
            handler(frame)

    def _answer(self, frame: Frame) -> None:
        self._send(FrameType.PING, frame.id, struct.pack("<Q", time.monotonic_ns()))

    def _kill(self, frame: Frame) -> None:
        if frame.id in self._jobs:
            number = frame.payload[0] if frame.payload else signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._jobs[frame.id].pid, number)

    def _stop(self) -> None:
        """Stop the machine here; a snapshot may be taken, an order may be left."""
        if self._mailbox is not None:
            order = self._mailbox.stop()
            for frame in FrameDecoder().feed(order):
                self._handle(frame)

    def _execute(self, frame: Frame) -> None:
        """Start after ``delay_ns``, or at once."""
        delay_ns = int(frame.json().get("delay_ns", 0))
        if delay_ns <= 0:
            self._spawn(frame)
            return
        timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]
        os.timerfd_settime_ns(timer, initial=delay_ns)  # type: ignore[attr-defined,unused-ignore]
        self._delayed[timer] = (timer, frame)
        self._poll.register(timer, select.POLLIN)

    def _start_delayed(self, handle: int) -> None:
        timer, frame = self._delayed.pop(handle)
        self._poll.unregister(timer)
        os.close(timer)
        self._spawn(frame)

    def _spawn(self, frame: Frame) -> None:
        order = frame.json()
        argv = [str(word) for word in order["argv"]]
        environment = _ENVIRONMENT | dict(order.get("environment", {}))
        if order.get("tty"):
            job, actions, theirs = _on_terminal(frame.id, order["tty"])
        else:
            job, actions, theirs = _on_pipes(frame.id, with_input=bool(order.get("stdin")))
        job.stop_after = bool(order.get("stop_after"))
        _perturb(order.get("entropy", ""), int(order.get("noise_pages", 0)))
        job.started_ns = time.monotonic_ns()
        try:
            if self._directory is not None:  # another project may have been mounted there
                os.chdir(self._directory)
            job.pid = os.posix_spawnp(
                argv[0],
                argv,
                environment,
                file_actions=actions,
                setsid=True,
                setsigdef=_DEFAULT_SIGNALS,
            )
        except OSError as error:
            for handle in {*job.streams, *([] if job.input is None else [job.input])}:
                os.close(handle)
            end = {"error": f"{argv[0]}: {error.strerror}", "errno": error.errno}
            self._send(FrameType.EXIT, frame.id, json.dumps(end).encode())
            return
        finally:
            for handle in theirs:
                os.close(handle)
        self._jobs[frame.id] = job
        for stream in job.streams:
            os.set_blocking(stream, False)
            self._stream_owner[stream] = job
            self._poll.register(stream, select.POLLIN)
        if job.input is not None and job.input not in job.streams:
            os.set_blocking(job.input, False)
            self._stream_owner[job.input] = job

    def _exchange(self, handle: int, events: int) -> None:
        job = self._stream_owner.get(handle)
        if job is None:  # closed by an earlier event of the same poll
            return
        if handle == job.input and events & ~select.POLLIN:
            self._feed(job)
        if handle in job.streams:
            self._forward(job, handle)

    def _forward(self, job: _Job, stream: int) -> None:
        try:
            data = os.read(stream, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        if data:
            self._send(job.streams[stream], job.id, data)
            return
        self._close(job, stream)
        self._finish(job)

    def _close(self, job: _Job, handle: int) -> None:
        with contextlib.suppress(KeyError):  # input is registered only while something waits
            self._poll.unregister(handle)
        os.close(handle)
        job.streams.pop(handle, None)
        del self._stream_owner[handle]
        if handle == job.input:
            job.input = None

    def _take_input(self, frame: Frame) -> None:
        job = self._jobs.get(frame.id)
        if job is not None:
            job.waiting += frame.payload
            job.ended = job.ended or not frame.payload
            self._feed(job)

    def _feed(self, job: _Job) -> None:
        """Write what waits as far as the command takes it, and report how much that was."""
        taken = 0
        try:
            if job.input is None:
                taken = len(job.waiting)
            elif job.waiting:
                taken = os.write(job.input, job.waiting)
        except BlockingIOError:
            pass
        except OSError:  # EPIPE, EIO: nobody will read it
            taken, job.ended = len(job.waiting), True
        if taken:
            del job.waiting[:taken]
            self._send(FrameType.STDIN, job.id, struct.pack("<I", taken))
        if job.input is not None:
            self._rest(job, job.input)

    def _rest(self, job: _Job, handle: int) -> None:
        """Wait until the command takes more, or close its input when that was all."""
        if not job.waiting and job.ended:
            self._close(job, handle)
        elif job.waiting:
            reading = select.POLLIN if handle in job.streams else 0
            self._poll.register(handle, reading | select.POLLOUT)
        elif handle in job.streams:
            self._poll.register(handle, select.POLLIN)
        else:
            with contextlib.suppress(KeyError):
                self._poll.unregister(handle)

    def _resize(self, frame: Frame) -> None:
        job = self._jobs.get(frame.id)
        if job is not None and job.input in job.streams:
            _set_size(job.input, *struct.unpack("<HH", frame.payload))

    def _reap(self) -> None:
        os.read(self._wake, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # Looked up each time: the end of one job may have started another, by an order.
            for job in [job for job in self._jobs.values() if job.pid == pid]:
                job.status = status
                self._finish(job)

    def _finish(self, job: _Job) -> None:
        """Report the end when the process is gone, with what its pipes hold by then.

        What it has started ends with it, and cannot add to the result any more.
        """
        if job.status is None:
            return
        elapsed_ns = time.monotonic_ns() - job.started_ns
        for stream in list(job.streams):
            self._drain(job, stream)
            self._close(job, stream)
        if job.input is not None:
            self._close(job, job.input)
        del self._jobs[job.id]
        status = os.waitstatus_to_exitcode(job.status)
        end: dict[str, object] = {"status": status, "elapsed_ns": elapsed_ns}
        end["leapt"] = self._mailbox is not None and self._mailbox.leapt
        try:
            end_children(spare=[other.pid for other in self._jobs.values()])
        except WorkloadError as error:
            end["unended"] = error.message
        self._send(FrameType.EXIT, job.id, json.dumps(end).encode())
        if job.stop_after:
            self._stop()

    def _drain(self, job: _Job, stream: int) -> None:
        left = _MOST_IN_PIPE
        with contextlib.suppress(OSError):  # nothing more now (EAGAIN), or ever (EIO of a terminal)
            while left > 0 and (data := os.read(stream, CHUNK)):
                self._send(job.streams[stream], job.id, data)
                left -= len(data)

    def _open_upload(self, frame: Frame) -> None:
        path = Path(os.fsdecode(frame.payload))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._uploads[frame.id] = _opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
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

    def _close_upload(self, frame: Frame) -> None:
        target = self._uploads.pop(frame.id, None)
        try:
            if isinstance(target, OSError):
                raise target
            if target is not None:
                target.close()
        except OSError as error:
            self._send(FrameType.END, frame.id, os.fsencode(str(error)))
        else:
            self._send(FrameType.END, frame.id)

    def _download(self, frame: Frame) -> None:
        error = b""
        try:
            with _opened(Path(os.fsdecode(frame.payload)), os.O_RDONLY) as stream:
                while data := stream.read(CHUNK):
                    self._send(FrameType.DATA, frame.id, data)
        except OSError as failure:
            error = os.fsencode(str(failure))
        self._send(FrameType.END, frame.id, error)


def _opened(path: Path, flags: int) -> IO[bytes]:
    """Open what a transfer cannot wait for: this is process 1, and nobody answers meanwhile.

    Files of the kernel that wait for news, such as trace_pipe and /proc/kmsg, give what they
    have now (O_NONBLOCK). Devices are not even opened: that may already do something.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            kind = "character device" if stat.S_ISCHR(mode) else "pipe or socket"
            reason = f"a {kind} is not copied: read or write it with a command"
            raise OSError(errno.EINVAL, reason, str(path))
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if flags == os.O_RDONLY:
        return os.fdopen(handle, "rb", buffering=0)
    return os.fdopen(handle, "wb")


def _on_pipes(request: int, *, with_input: bool) -> tuple[_Job, list[_Action], list[int]]:
    """Return a job on pipes, how its command gets them, and the ends to close here."""
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    job = _Job(request, {out_read: FrameType.STDOUT, err_read: FrameType.STDERR})
    theirs = [out_write, err_write]
    source: _Action = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
    if with_input:
        in_read, job.input = os.pipe2(os.O_CLOEXEC)
        theirs.append(in_read)
        source = (os.POSIX_SPAWN_DUP2, in_read, 0)
    to_pipes = [(os.POSIX_SPAWN_DUP2, out_write, 1), (os.POSIX_SPAWN_DUP2, err_write, 2)]
    return job, [source, *to_pipes], theirs


def _on_terminal(request: int, size: Sequence[int]) -> tuple[_Job, list[_Action], list[int]]:
    """Return a job on a new terminal, like `_on_pipes`.

    The command leads a session without a terminal, so the first that it opens is its own.
    """
    master, slave = os.openpty()
    _set_size(master, *size)
    first: _Action = (os.POSIX_SPAWN_OPEN, 0, os.ttyname(slave), os.O_RDWR, 0)
    others = [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    return _Job(request, {master: FrameType.STDOUT}, master), [first, *others], [slave]


def _perturb(entropy: str, noise_pages: int) -> None:
    """Vary what a start depends on and should not: address layout, order of free pages.

    The kernel draws layouts (ASLR) from its generator, so that gets other seeds; see
    random(4). Pages are touched and freed again.
    """
    if entropy:
        import fcntl  # noqa: PLC0415 - only measured starts need it

        pool = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(pool, bytes.fromhex(entropy))
            fcntl.ioctl(pool, _RESEED)
        finally:
            os.close(pool)
    if noise_pages:
        noise = mmap.mmap(-1, noise_pages * mmap.PAGESIZE)
        for offset in range(0, len(noise), mmap.PAGESIZE):
            noise[offset] = 1
        noise.close()


def _set_size(terminal: int, rows: int, columns: int) -> None:
    import termios  # noqa: PLC0415 - only consoles need it, every guest's start would pay

    termios.tcsetwinsize(terminal, (rows, columns))


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
    handle = os.open(port, os.O_RDWR | os.O_CLOEXEC)
    Agent(handle, Mailbox(), PROJECT_DIRECTORY).serve()


if __name__ == "__main__":
    main()
