"""A guest for people: one command or console in it, streams passed on as they come."""

from __future__ import annotations

import contextlib
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from hyperbox.errors import HarnessError, WorkloadError
from hyperbox.files import write_text
from hyperbox.harness.lab.guest_image import project_image, root_image
from hyperbox.harness.lab.kernel_kit import KernelKit
from hyperbox.harness.lab.kernel_variant import kernel_variant
from hyperbox.harness.lab.layers import layer_image
from hyperbox.harness.lab.protocol import INPUT_WINDOW, Frame, FrameType
from hyperbox.harness.lab.terminal import EscapeWatch, RawTerminal
from hyperbox.harness.lab.vm import VirtualMachine
from hyperbox.harness.lab.vm_laboratory import hardware_for, warm_snapshot
from hyperbox.harness.model import Experiment, Lane, MachineRequest
from hyperbox.paths import cache_directory

__all__ = [
    "CommandOverdue",
    "CommandUnstartable",
    "ConsoleLeft",
    "Input",
    "Streams",
    "converse",
    "give_file",
    "keep_console",
    "open_guest",
]

_HEARTBEAT = 10.0
_ANSWER_LIMIT = 60.0
_LAST_WORDS = 2.0  # seconds for an interrupted command to end by itself
_KEPT_CONSOLES = 50


class CommandUnstartable(WorkloadError):
    """The guest has no such program, or it is not a program; `errno` says which."""

    def __init__(self, message: str, errno: int) -> None:
        super().__init__(message)
        self.errno = errno


class CommandOverdue(WorkloadError):
    """The command outlived its time on a machine that answers; it was killed."""


class ConsoleLeft(Exception):
    """The user left a console with the escape; the command still ran."""


class Input(Protocol):
    """What a command's input is read from, when select(2) says so; ``io.FileIO`` is one."""

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        ...

    def read(self, size: int, /) -> bytes | None:
        """Return at most so many bytes; none at the end, None if there is nothing yet."""
        ...


@dataclass(frozen=True)
class Streams:
    """Where a command's output goes, and where its input comes from.

    `stdin` is None for no input. With a `terminal` the command runs on one of
    its own, of the same size, and all output goes to `out`.
    """

    out: Callable[[bytes], None]
    err: Callable[[bytes], None]
    stdin: Input | None = None
    terminal: RawTerminal | None = None


@contextlib.contextmanager
def open_guest(
    kit: KernelKit,
    lane: Lane,
    *,
    wanted: MachineRequest = Experiment.machine,
    layers: Sequence[str] = (),
    progress: Callable[[str, float], None] | None = None,
) -> Iterator[VirtualMachine]:
    """Return a guest in which nothing has run yet, and end it with the block.

    It is a clone of the kernel's kept snapshot; a kernel without one is booted first.

    Parameters
    ----------
    wanted
        The machine; by default as measured guests have it. Its `modules` is a path.
    layers
        Names of what the guest has beside its root; see `layer_image`.

    Raises
    ------
    HarnessError
        If it does not come up, or goes away in the block; the error has the console.
    """
    report = progress or (lambda _text, _fraction: None)
    images = [layer_image(name, progress) for name in layers]
    root = root_image(progress)
    replaced = Path(wanted.modules) if wanted.modules else None
    kit = kernel_variant(kit, wanted.without_modules, replaced)
    hardware = hardware_for(kit, lane, root, project_image(), wanted, images)
    with (
        contextlib.closing(warm_snapshot(kit, hardware, report)) as snapshot,
        snapshot.clone() as machine,
    ):
        try:
            yield machine
        except HarnessError as error:
            error.console = machine.boot_console + machine.console()
            raise


def give_file(machine: VirtualMachine, path: str, data: bytes, *, program: bool) -> None:
    """Write a file in the guest, executable if it is a program.

    Raises
    ------
    WorkloadError
        If the guest cannot.
    """
    try:
        machine.put(path, data)
    except OSError as error:
        raise WorkloadError(f"--put: {error}") from error
    if program and machine.execute(["chmod", "+x", "--", path], timeout=60).status:
        raise WorkloadError(f"--put: {path} cannot be made executable in the guest")


def converse(
    machine: VirtualMachine,
    argv: Sequence[str],
    streams: Streams,
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> int:
    """Run a command in the project directory; return its status (negative: a signal).

    KeyboardInterrupt is passed on to the command as SIGINT, and raised when it has ended or
    two seconds have gone by.

    Raises
    ------
    GuestCrash, MachineLost
        If the machine went away.
    CommandUnstartable, CommandOverdue
        As their names say; `timeout` is in seconds.
    ConsoleLeft
        If the user left a terminal.
    """
    order: dict[str, object] = {}
    if streams.terminal is not None:
        order["tty"] = streams.terminal.size()
    elif streams.stdin is not None:
        order["stdin"] = True
    request = machine.begin(argv, environment or {}, **order)
    talk = _Conversation(machine, request, streams)
    try:
        end = talk.until_end(timeout)
    except KeyboardInterrupt:
        with contextlib.suppress(WorkloadError, HarnessError):
            machine.send(FrameType.KILL, bytes([signal.SIGINT]), request)
            talk.streams = replace(streams, stdin=None, terminal=None)
            talk.until_end(_LAST_WORDS)
        raise
    if "error" in end:
        raise CommandUnstartable(f"cannot start in the guest: {end['error']}", end.get("errno", 0))
    return int(end["status"])


def keep_console(name: str, text: str) -> Path:
    """Write what a lost guest had printed where its user finds it; the last 50 stay."""
    directory = cache_directory() / "consoles"
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    path = directory / f"{stamp}-{name}.log"
    write_text(path, text)
    for old in sorted(directory.glob("*.log"))[:-_KEPT_CONSOLES]:
        old.unlink(missing_ok=True)
    return path


@dataclass
class _Conversation:
    """One command's frames, input and window; one thread, one select."""

    machine: VirtualMachine
    request: int
    streams: Streams
    _credit: int = INPUT_WINDOW
    _watch: EscapeWatch = field(default_factory=EscapeWatch)
    _heard: float = field(default_factory=time.monotonic)
    _asked: bool = False
    _progress: tuple[float, float] = (0.0, 0.0)

    def until_end(self, timeout: float | None) -> Mapping[str, Any]:
        """Pass everything on until the command ends; return what the agent says of it."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            ready = self._wait(deadline)
            if self.streams.terminal in ready:
                self._resize()
            if self.streams.stdin in ready:
                self._pass_input()
            if self.machine in ready:
                self._heard, self._asked = time.monotonic(), False
                for frame in self.machine.arrived():
                    if frame.type is FrameType.EXIT and frame.id == self.request:
                        return frame.json()
                    self._take(frame)
            if time.monotonic() >= deadline:
                self.machine.send(FrameType.KILL, b"", self.request)
                self.machine.ping()  # a machine that hangs is lost, not overdue
                raise CommandOverdue(f"no end after {timeout:g} s")

    def _wait(self, deadline: float) -> Sequence[object]:
        sources: list[Any] = [self.machine]
        if self.streams.terminal is not None:
            sources.append(self.streams.terminal)
        if self.streams.stdin is not None and self._credit > 0:
            sources.append(self.streams.stdin)
        now = time.monotonic()
        ready, _, _ = select.select(sources, [], [], min(self._beat(now), max(0.0, deadline - now)))
        return ready

    def _beat(self, now: float) -> float:
        """Ask a silent machine whether it is there; return the seconds until the next look.

        The answer is not waited for: a hanging console can still be left.
        """
        silence = now - self._heard
        if self.machine.hardware.lane is Lane.EXACT:
            if silence > _HEARTBEAT:
                self._progress = self.machine.heartbeat(self._progress)
            return _HEARTBEAT
        if silence > _HEARTBEAT and not self._asked:
            self.machine.send(FrameType.PING)
            self._asked = True
        if silence > _HEARTBEAT + _ANSWER_LIMIT:
            raise self.machine.lost(f"the guest has not answered for {silence:.0f} s")
        return _HEARTBEAT / 2

    def _take(self, frame: Frame) -> None:
        if frame.id != self.request:
            return
        if frame.type is FrameType.STDOUT:
            self.streams.out(frame.payload)
        elif frame.type is FrameType.STDERR:
            self.streams.err(frame.payload)
        elif frame.type is FrameType.STDIN:
            self._credit += struct.unpack("<I", frame.payload)[0]

    def _pass_input(self) -> None:
        assert self.streams.stdin is not None
        try:
            data = self.streams.stdin.read(self._credit)
        except OSError:  # EIO: the terminal was hung up
            data = b""
        if data is None:
            return
        self.machine.send(FrameType.STDIN, data, self.request)
        self._credit -= len(data)
        if not data:
            self.streams = replace(self.streams, stdin=None)
        if self.streams.terminal is not None and self._watch.feed(data):
            raise ConsoleLeft

    def _resize(self) -> None:
        assert self.streams.terminal is not None
        size = struct.pack("<HH", *self.streams.terminal.size())
        self.machine.send(FrameType.WINDOW, size, self.request)
