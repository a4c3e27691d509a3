"""One virtual machine: a QEMU process, its monitor, its agent's channel, its end.

The exit status of a command travels in a frame, never over the console, and a machine
that dies is a `GuestCrash` or `MachineLost`, never a result.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import FileIO
from typing import Any

from hyperbox.errors import HarnessError, MachineLost, WorkloadError
from hyperbox.harness.lab.channel import Channel, ChannelBroken, ChannelDamaged
from hyperbox.harness.lab.cpu_lease import leased_cpu
from hyperbox.harness.lab.exit_evidence import ExitEvidence, never_booted, what_happened
from hyperbox.harness.lab.machine import Artifacts, CommandResult
from hyperbox.harness.lab.mailbox import leave_order
from hyperbox.harness.lab.migration import load_devices, save_devices
from hyperbox.harness.lab.monitor import Monitor, MonitorError
from hyperbox.harness.lab.nameless import content, in_memory, inherited_path, on_disk
from hyperbox.harness.lab.order import execute_order
from hyperbox.harness.lab.post_mortem import examine_remains, halted
from hyperbox.harness.lab.process_stat import run_delay_seconds, stat_of
from hyperbox.harness.lab.protocol import CHUNK, MAX_PAYLOAD, Frame, FrameType
from hyperbox.harness.lab.qemu import Connections, GuestHardware, Qemu, command_line
from hyperbox.harness.model import Lane, Perturbation
from hyperbox.processes import spawn, stop

__all__ = ["VirtualMachine"]

_PING_TIMEOUT = 60.0
_STANDSTILL = 60.0  # host seconds without any CPU time: nothing in the guest will wake it
_BEAT = 10.0


class VirtualMachine:
    """A running guest. Use as a context manager; leaving kills QEMU and closes its files.

    Parameters
    ----------
    ram
        The guest's memory (see `nameless`), empty for a guest that boots. The caller closes
        it.
    shared
        True while a snapshot is being made; False for a copy-on-write clone.
    state
        The device state to start from: the guest is stopped then until its first use.
    kernel_config, boot_console
        The kernel's configuration and, for a clone, what the console showed before the
        snapshot: for the artifacts.
    """

    def __init__(
        self,
        qemu: Qemu,
        hardware: GuestHardware,
        *,
        ram: FileIO,
        shared: bool,
        state: FileIO | None = None,
        kernel_config: str = "",
        boot_console: str = "",
    ) -> None:
        self.hardware = hardware
        self._qemu = qemu
        self._config = kernel_config
        self.boot_console = boot_console
        self._dmesg = ""
        self._taint: int | None = None
        self._modules: tuple[str, ...] = ()
        self._silent = False
        self._stopped = False
        self._may_stop = False
        self.leapt = False
        """Whether the virtual clock has leapt while the guest stopped: see `mailbox`."""
        self.events: list[Mapping[str, Any]] = []  # QEMU's, known when the machine is lost
        self._exits = contextlib.ExitStack()
        self._saved: FileIO | None = None
        try:
            self._serial_log = self._exits.enter_context(on_disk())
            self._error_log = self._exits.enter_context(on_disk())
            self._mailbox = self._exits.enter_context(in_memory("mailbox"))
            self._launch(ram, shared, state)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VirtualMachine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill QEMU, reap it, close its files; harmless when repeated."""
        self._exits.close()

    @property
    def pid(self) -> int:
        """Process number of QEMU."""
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """CPU time that QEMU has used so far, user and system, all threads, in seconds."""
        if self._process.returncode is not None:
            raise self.lost("QEMU has ended")
        return stat_of(self.pid).cpu_seconds

    def monitor(self, command: str, **arguments: object) -> Any:
        """Run a QMP command and return its result.

        Raises
        ------
        MachineLost
            If QEMU is gone or refuses the command.
        """
        try:
            return self._qmp.command(command, arguments)
        except MonitorError as error:
            raise self.lost(f"monitor command {command} failed: {error}") from error

    def wait_ready(self, timeout: float = 240.0) -> Mapping[str, Any]:
        """Wait for the agent; gives ``{"release", "monotonic_ns"}``.

        Raises
        ------
        BootTimeout
            If the agent has not answered after `timeout` seconds.
        GuestCrash, MachineLost
            If the guest or QEMU died.
        """
        deadline = time.monotonic() + timeout
        progress = (0.0, time.monotonic())
        while True:
            try:
                frame = self._next_frame(min(deadline, time.monotonic() + _BEAT))
                break
            except TimeoutError:
                progress = self._progress(progress)
                self._let_panic_report()
                if time.monotonic() < deadline:
                    continue
                if self.console().strip():
                    self._examine()
                raise never_booted(timeout, ExitEvidence(self.console())) from None
        self._wait_stop()
        return frame.json()

    def ping(self, timeout: float | None = None) -> int:
        """Return the guest's CLOCK_MONOTONIC in ns; MachineLost when nothing answers."""
        if halted(self._process):
            raise self.lost("a ping cannot be answered")
        request = self._send(FrameType.PING)
        timeout = _PING_TIMEOUT if timeout is None else timeout
        payload = self._await(request, FrameType.PING, timeout, "a ping").payload
        return int(struct.unpack("<Q", payload)[0])

    def execute(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        start: Perturbation | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command in the project directory; see `machine.Machine`.

        On a fresh clone the command begins at a guest time that depends on the snapshot and
        on `start` only: the order lies in the mailbox when the guest goes on.
        """
        return self._execute(argv, timeout, execute_order(argv, environment, start))

    def prepare(self, argv: Sequence[str], *, timeout: float) -> CommandResult:
        """Run a command and let the guest stop after it, ready to be saved."""
        done = self._execute(argv, timeout, execute_order(argv) | {"stop_after": True})
        self._wait_stop()
        return done

    def _execute(
        self, argv: Sequence[str], timeout: float, order: Mapping[str, object]
    ) -> CommandResult:
        payload = json.dumps(order).encode()
        used, waited = self.cpu_seconds, run_delay_seconds(self.pid)
        if self._stopped:
            request = self._agent.number()
            self.resume(Frame(FrameType.EXECUTE, request, payload).encode())
        elif "delay_ns" in order:
            raise HarnessError("a start can be planned on a fresh clone only")
        else:
            request = self._send(FrameType.EXECUTE, payload)
        result = self._collect(request, argv, timeout)
        return replace(
            result,
            cpu_seconds=self.cpu_seconds - used,
            run_delay_seconds=max(run_delay_seconds(self.pid) - waited, 0.0),
        )

    def begin(self, argv: Sequence[str], environment: Mapping[str, str], **more: object) -> int:
        """Start a command whose frames the caller takes from `arrived`; return its number.

        `more` goes into the order: ``stdin``, ``tty``; see `FrameType.EXECUTE`.

        Raises
        ------
        WorkloadError
            If it is longer than any kernel takes.
        """
        payload = json.dumps(execute_order(argv, environment) | more).encode()
        if len(payload) > MAX_PAYLOAD:
            raise WorkloadError(f"a command of {len(payload) >> 20} MiB is too long for a guest")
        return self.send(FrameType.EXECUTE, payload)

    def send(self, kind: FrameType, payload: bytes = b"", request: int | None = None) -> int:
        """Send a frame, about a request that runs or a new one; return the request's number."""
        self.resume()
        return self._send(kind, payload, request)

    def arrived(self) -> Sequence[Frame]:
        """Return the frames that are there; blocks unless `fileno` is readable."""
        with self._losing():
            return self._agent.arrived()

    def fileno(self) -> int:
        """Return the descriptor that select(2) can wait on for `arrived`."""
        return self._agent.fileno()

    def heartbeat(self, progress: tuple[float, float]) -> tuple[float, float]:
        """Raise MachineLost if the guest stands still; `progress` is CPU time, and since when.

        No ping in the exact lane: its interrupt would arrive at a random virtual time and
        change the measured numbers. There an idle guest runs on to its next timer, so one
        that uses no CPU time has nothing left to wake it.
        """
        progress = self._progress(progress)
        if self.hardware.lane is Lane.EXACT:
            if time.monotonic() - progress[1] > _STANDSTILL:
                raise self.lost(f"the guest has stood still for {_STANDSTILL:g} s")
        elif not halted(self._process):  # it may be let go on before the next beat
            self.ping()
        return progress

    def _progress(self, before: tuple[float, float]) -> tuple[float, float]:
        """Return CPU time, and since when it is that; MachineLost if QEMU is stopped for a beat."""
        used, now = self.cpu_seconds, time.monotonic()
        if used > before[0]:
            return used, now
        if halted(self._process):
            raise self.lost("the guest does not run")
        return before

    def put(self, path: str, data: bytes) -> None:
        """Write a file in the guest; OSError with the guest's reason if it cannot."""
        self.resume()  # a stopped guest would not empty the channel
        request = self._send(FrameType.PUT, os.fsencode(path))
        for offset in range(0, len(data), CHUNK):
            self._send(FrameType.DATA, data[offset : offset + CHUNK], request)
        self._send(FrameType.END, b"", request)
        end = self._await(request, FrameType.END, _PING_TIMEOUT, f"the upload of {path}")
        self._end_of_transfer(end, path)

    def get(self, path: str) -> bytes:
        """Read a file of the guest; FileNotFoundError if it is absent."""
        request = self._send(FrameType.GET, os.fsencode(path))
        self.resume()
        parts: list[bytes] = []
        while True:
            frame = self._await(request, None, _PING_TIMEOUT, f"the download of {path}")
            if frame.type is FrameType.END:
                self._end_of_transfer(frame, path)
                return b"".join(parts)
            parts.append(frame.payload)

    def artifacts(self) -> Artifacts:
        """Collect console, configuration and, while the agent answers, what the kernel says."""
        if self._process.poll() is None and not self._silent:
            with contextlib.suppress(HarnessError, WorkloadError, OSError, ValueError):
                self._dmesg = self.execute(["dmesg"], timeout=60).stdout.decode(errors="replace")
                self._taint = int(self.get("/proc/sys/kernel/tainted"))
                modules = self.get("/proc/modules").decode(errors="replace").splitlines()
                self._modules = tuple(sorted(line.split()[0] for line in modules))
        console = self.boot_console + self.console()
        return Artifacts(console, self._dmesg, self._config, self._taint, self._modules)

    def console(self) -> str:
        """Return what the guest has printed on its serial console."""
        return content(self._serial_log).decode(errors="replace")

    def save(self) -> FileIO:
        """Return the devices of a stopped guest, for the caller to close; memory is in `ram`."""
        if self._saved is None:
            raise HarnessError("a guest whose memory is private cannot be saved")
        if not self._stopped:
            self.prepare(["true"], timeout=_PING_TIMEOUT)
        save_devices(self.monitor, self._saved)
        return FileIO(os.dup(self._saved.fileno()), "r+")

    def resume(self, order: bytes = b"") -> None:
        """Let a stopped machine run, at first with `order`; no effect on a running one."""
        if self._stopped:
            self._stopped = False
            leave_order(self._mailbox, order)
            self.monitor("cont")

    def _wait_stop(self) -> None:
        """Wait until the guest has stopped itself."""
        deadline = time.monotonic() + _PING_TIMEOUT
        while self.monitor("query-status")["running"]:
            if time.monotonic() > deadline:
                raise self.lost("the guest does not stop to be saved")
            time.sleep(0.002)
        self._qmp.forget_events()  # the stop looks like a panic
        self._stopped = True

    def _let_panic_report(self) -> None:
        """Let a guest that may stop itself, but panics, go on to the end of its report."""
        if not self._may_stop or halted(self._process):
            return
        if self.monitor("query-status")["status"] != "guest-panicked":
            return
        if not self._agent.readable(0):  # nor has it just said its end
            self.monitor("set-action", panic="none")
            self.monitor("cont")

    def _launch(self, ram: FileIO, shared: bool, state: FileIO | None) -> None:
        agent, agent_remote = socket.socketpair()
        qmp, qmp_remote = socket.socketpair()
        cpus = os.sched_getaffinity(0)
        if self.hardware.lane is Lane.EXACT:
            cpus = {self._exits.enter_context(leased_cpu())}
        self._agent = Channel(agent, _PING_TIMEOUT)
        self._exits.callback(self._agent.close)
        leave_order(self._mailbox)
        if shared:
            self._saved = self._exits.enter_context(in_memory("state"))
        with agent_remote, qmp_remote:
            self._process = self._spawn(ram, state, agent_remote.fileno(), qmp_remote.fileno())
        self._exits.callback(stop, self._process)
        with contextlib.suppress(OSError):  # it has ended: found out when it does not greet
            os.sched_setaffinity(self._process.pid, cpus)
        stopped = functools.partial(halted, self._process)
        self._qmp = Monitor(qmp, _PING_TIMEOUT, beat=_BEAT, hopeless=stopped)
        self._exits.callback(self._close_monitor)
        try:
            self._qmp.connect(_PING_TIMEOUT)
        except MonitorError as error:
            raise self.lost(f"QEMU did not start: {error}") from error
        if shared:
            self._may_stop = True
            self.monitor("set-action", panic="pause")
        if state is not None:
            load_devices(self.monitor, self._qemu, state)
            self._stopped = True

    def _spawn(
        self, ram: FileIO, state: FileIO | None, agent_fd: int, monitor_fd: int
    ) -> subprocess.Popen[bytes]:
        words = command_line(
            self._qemu,
            self.hardware,
            ram_file=inherited_path(ram),
            ram_shared=self._saved is not None,
            connections=Connections(
                inherited_path(self._serial_log),
                inherited_path(self._mailbox),
                agent_fd,
                monitor_fd,
            ),
            incoming=state is not None,
        )
        files = (ram, state, self._saved, self._serial_log, self._mailbox)
        inherited = [file.fileno() for file in files if file is not None]
        return spawn(
            words,
            pass_fds=[agent_fd, monitor_fd, *inherited],
            stderr=self._error_log.fileno(),
        )

    def _close_monitor(self) -> None:
        stop(self._process)  # first: a stopped QEMU would not say goodbye
        self._qmp.close()

    def _send(self, kind: FrameType, payload: bytes = b"", request: int | None = None) -> int:
        with self._losing():
            return self._agent.send(kind, payload, request)

    def _next_frame(self, deadline: float) -> Frame:
        with self._losing():
            return self._agent.next(deadline)

    def _await(self, request: int, kind: FrameType | None, timeout: float, asked: str) -> Frame:
        """Return the next frame of a request, which is `asked` in words."""
        self.resume()
        try:
            with self._losing():
                return self._agent.answer(request, kind, time.monotonic() + timeout)
        except TimeoutError:
            words = f"the agent does not answer {asked} within {timeout:g} s"
            raise self.lost(words) from None

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        """Turn the end of the conversation into that of the machine."""
        try:
            yield
        except ChannelBroken as error:
            raise self.lost(str(error)) from error
        except ChannelDamaged as error:
            raise MachineLost(str(error), fingerprint="agent death: damaged channel") from error

    def _collect(self, request: int, argv: Sequence[str], timeout: float) -> CommandResult:
        out: dict[FrameType, list[bytes]] = {FrameType.STDOUT: [], FrameType.STDERR: []}
        for frame in self._frames_until_exit(request, argv, timeout):
            if frame.type is not FrameType.EXIT:
                out[frame.type].append(frame.payload)
                continue
            end = frame.json()
            if "error" in end:
                raise WorkloadError(f"cannot start in the guest: {end['error']}")
            if "unended" in end:
                raise WorkloadError(f"left over after {' '.join(argv[:3])}: {end['unended']}")
            self.leapt = self.leapt or bool(end["leapt"])
            streams = (b"".join(out[FrameType.STDOUT]), b"".join(out[FrameType.STDERR]))
            return CommandResult(int(end["status"]), *streams, int(end["elapsed_ns"]))
        raise AssertionError("the stream of frames ends with EXIT")

    def _frames_until_exit(
        self, request: int, argv: Sequence[str], timeout: float
    ) -> Iterator[Frame]:
        deadline = time.monotonic() + timeout
        progress = (0.0, time.monotonic())
        while True:
            try:
                frame = self._next_frame(min(deadline, time.monotonic() + _BEAT))
            except TimeoutError:
                if time.monotonic() < deadline:
                    progress = self.heartbeat(progress)
                    continue
                self._send(FrameType.KILL, b"", request)
                self.ping()  # a machine that hangs is lost, not a failed workload
                raise WorkloadError(f"no end after {timeout:g} s: {' '.join(argv[:3])}") from None
            if frame.id == request:
                yield frame
                if frame.type is FrameType.EXIT:
                    return

    def _end_of_transfer(self, frame: Frame, path: str) -> None:
        if frame.payload:
            message = frame.payload.decode(errors="replace")
            kind = FileNotFoundError if "[Errno 2]" in message else OSError
            raise kind(f"{path} in the guest: {message}")

    def lost(self, message: str) -> MachineLost:
        """Tell a crash of the guest from a loss of QEMU or its agent, with the evidence."""
        remains = self._examine()
        errors = content(self._error_log).decode(errors="replace").strip().replace("\n", "; ")
        return what_happened(message, replace(remains, console=self.console(), errors=errors))

    def _examine(self) -> ExitEvidence:
        """Find out in bounded time what became of QEMU and its guest; see `post_mortem`."""
        self._silent = True
        remains = examine_remains(self._process, self._qmp)
        self.events += remains.events
        return replace(remains, events=self.events)
