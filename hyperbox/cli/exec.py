"""``hyperbox exec``: run a command under one kernel, or under several."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperbox.cli.guest_options import (
    Prepared,
    add_options,
    asked_kernels,
    exit_status,
    lost,
    pair,
    prepare,
    progress,
    standard_input,
    to_stderr,
    to_stdout,
)
from hyperbox.errors import ConfigError, ExitCode, HarnessError, HyperboxError, WorkloadError
from hyperbox.files import write_bytes
from hyperbox.harness.lab.kernel_kit import KernelKit
from hyperbox.harness.lab.session import (
    CommandOverdue,
    CommandUnstartable,
    Input,
    Streams,
    converse,
    give_file,
    open_guest,
)
from hyperbox.harness.lab.vm import VirtualMachine
from hyperbox.printing import complain, one_line, print_error
from hyperbox.runtime.containers import execute
from hyperbox.runtime.registry import ContainerRegistry

__all__ = ["KeptInput", "LinePrefix", "add_parser"]

_OVERDUE, _NO_PROGRAM, _NOT_FOUND = 124, 126, 127  # as timeout(1) and shells
_EPILOG = """\
CMD runs in /opt/hyperbox, the project. Its output comes as it is printed; its input is what
is piped into hyperbox. Write -- before CMD.

exit status: CMD's; 128+N if signal N ended it; 124 after --timeout; 127 and 126 if CMD is not
there or no program; 3 if the machine died, with one line that names crash and console.

examples:
  hyperbox exec --kernel 6.1 -- uname -a
  hyperbox exec --kernel 5.10 --kernel 7.3 -- sh -c 'grep -c . /proc/filesystems'
  hyperbox exec --kernel 6.12.90 --put test.py:/tmp/test.py -- python3 /tmp/test.py
  hyperbox exec --get /tmp/trace:trace.bin -- sh -c 'cat /proc/vmstat > /tmp/trace'
  hyperbox exec --layer redis -- redis-server --version
  hyperbox exec --container web -- cat /etc/hostname
  tar c data | hyperbox exec --memory 2048 -- tar x -C /tmp
"""


class LinePrefix:
    """Puts a prefix before every line of a stream that comes in pieces."""

    def __init__(self, prefix: bytes, out: Callable[[bytes], None]) -> None:
        self._prefix = prefix
        self._out = out
        self._inside = False

    def __call__(self, data: bytes) -> None:
        """Pass a piece on."""
        if not data:
            return
        text = b"".join(self._prefix + line for line in _lines(data))
        if self._inside:
            text = text[len(self._prefix) :]
        self._inside = not data.endswith(b"\n")
        self._out(text)

    def end(self) -> None:
        """End the last line, if it is not."""
        if self._inside:
            self._out(b"\n")
        self._inside = False


class KeptInput:
    """An input that several read from its start, one after the other, each part as it comes.

    What one has read is kept in memory for the next: nobody waits for the end of a pipe that
    only stays open.
    """

    def __init__(self, source: io.FileIO) -> None:
        self._source = source
        self._kept = os.memfd_create("input")
        self._at = self._size = 0
        self._ended = False

    def close(self) -> None:
        """Forget what is kept."""
        os.close(self._kept)

    def rewound(self) -> KeptInput:
        """Return it at its start."""
        self._at = 0
        return self

    def fileno(self) -> int:
        """Return the descriptor to wait for: what is kept is always ready."""
        return self._kept if self._at < self._size or self._ended else self._source.fileno()

    def read(self, size: int, /) -> bytes | None:
        """Return what is kept, then what comes, and keep that."""
        if self._at < self._size or self._ended:
            data = os.pread(self._kept, size, self._at)
        else:
            fresh = self._source.read(size)
            if fresh is None:
                return None
            data = fresh
            self._ended = not data
            self._size += os.pwrite(self._kept, data, self._size)
        self._at += len(data)
        return data


def _lines(data: bytes) -> list[bytes]:
    """Cut after every line feed, and nowhere else."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    return lines[:-1] if lines[-1] == b"\n" else [*lines[:-1], lines[-1].removesuffix(b"\n")]


@dataclass
class _Result:
    """What came of one kernel; `status` is the exit status that shows it."""

    kit: KernelKit
    status: int = ExitCode.HARNESS_ERROR
    error: str = ""
    fingerprint: str = ""
    seconds: float = 0.0
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "exec",
        help="run a command under a kernel, or in a container that runs",
        description="Boots a kernel, runs a command in it, and ends with the command's status. "
        "With --container it runs the command in a container of 'hyperbox run' instead.",
        usage="hyperbox exec [options] -- CMD [ARG ...]",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, several=True)
    parser.add_argument(
        "--container",
        metavar="NAME",
        help="run CMD in this container, under its seccomp filter; options of guests do not count",
    )
    parser.add_argument(
        "--put",
        action="append",
        default=[],
        metavar="FILE:PATH",
        help="copy FILE to PATH in the guest before; may be repeated",
    )
    parser.add_argument(
        "--get",
        action="append",
        default=[],
        metavar="PATH:FILE",
        help="copy PATH of the guest to FILE after, whatever CMD's status; may be repeated",
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="kill CMD after so long")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of the output"
    )
    parser.add_argument("command", nargs="+", metavar="CMD", help="program and arguments")
    parser.set_defaults(run=_run)


def _in_container(name: str, command: Sequence[str]) -> int:
    entry = ContainerRegistry().find(name)
    ended = execute(entry.runtime(), entry.name, command, terminal=sys.stdin.isatty())
    if ended.reason:
        complain(f"hyperbox: the command was not started: {ended.reason}")
    return ended.status


def _run(arguments: argparse.Namespace) -> int:
    if arguments.container is not None:
        return _in_container(arguments.container, arguments.command)
    puts = [pair(text, "--put", last=True) for text in arguments.put]
    gets = [pair(text, "--get", last=False) for text in arguments.get]
    files = [(path, *_readable(Path(name))) for name, path in puts]
    if arguments.timeout is not None and not arguments.timeout > 0:
        raise ConfigError(f"--timeout must be more than 0, not {arguments.timeout:g}")
    if gets and len(asked_kernels(arguments)) > 1:
        raise ConfigError("--get works with one kernel: several would overwrite the file")
    prepared = prepare(arguments)
    results = []
    with _input(several=len(prepared.kits) > 1) as rewound:
        for kit in prepared.kits:
            result = _Result(kit)
            results.append(result)
            try:
                _one(result, prepared, arguments, files, gets, rewound())
            except HyperboxError as error:
                _note(result, error)
    status = next((result.status for result in results if result.status), 0)
    if arguments.json:
        facts = [_facts(result) for result in results]
        print(json.dumps({"exit_code": status, "lane": prepared.lane, "runs": facts}, indent=2))
    return status


def _one(
    result: _Result,
    prepared: Prepared,
    arguments: argparse.Namespace,
    files: Sequence[tuple[str, bytes, bool]],
    gets: Sequence[tuple[str, str]],
    stdin: Input | None,
) -> None:
    """Run the command under one kernel; what fails is an exception."""
    prefix = f"{one_line(result.kit.label)} | ".encode() if len(prepared.kits) > 1 else b""
    out, err = LinePrefix(prefix, to_stdout), LinePrefix(prefix, to_stderr)
    streams = Streams(out, err, stdin)
    if not prefix:
        streams = Streams(to_stdout, to_stderr, stdin)
    if arguments.json:
        streams = Streams(result.stdout.extend, result.stderr.extend, stdin)
    with contextlib.ExitStack() as stack:
        with progress() as step:
            guest = open_guest(
                result.kit,
                prepared.lane,
                wanted=prepared.machine,
                layers=prepared.layers,
                progress=step,
            )
            machine = stack.enter_context(guest)
        for path, data, program in files:
            give_file(machine, path, data, program=program)
        began = time.monotonic()
        try:
            status = converse(machine, arguments.command, streams, timeout=arguments.timeout)
            result.status = exit_status(status)
        finally:
            result.seconds = time.monotonic() - began
            out.end()
            err.end()
        for path, name in gets:
            write_bytes(Path(name), _got(machine, path))


def _note(result: _Result, error: HyperboxError) -> None:
    """Say what went wrong in one line, and keep it as the kernel's result."""
    if isinstance(error, CommandOverdue):
        result.status = _OVERDUE
    elif isinstance(error, CommandUnstartable):
        missing = error.errno in (0, 2)
        result.status = _NOT_FOUND if missing else _NO_PROGRAM
    elif isinstance(error, HarnessError):
        result.fingerprint = error.fingerprint
        result.status = ExitCode.HARNESS_ERROR
        error = lost(result.kit.label, error)
    else:
        result.status = error.exit_code
    result.error = error.message
    print_error(error)


def _facts(result: _Result) -> dict[str, Any]:
    kit = result.kit
    return {
        "kernel": {"label": kit.label, "release": kit.release, "version": kit.version},
        "status": result.status,
        "error": result.error or None,
        "fingerprint": result.fingerprint or None,
        "seconds": round(result.seconds, 3),
        "stdout": result.stdout.decode(errors="replace"),
        "stderr": result.stderr.decode(errors="replace"),
    }


@contextlib.contextmanager
def _input(*, several: bool) -> Iterator[Callable[[], Input | None]]:
    """Return what gives the input for the next kernel; several read the same."""
    piped = None if _is_terminal() else standard_input()
    if piped is None or not several:
        yield lambda: piped
        return
    with contextlib.closing(KeptInput(piped)) as kept:
        yield kept.rewound


def _is_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:  # closed
        return False


def _readable(path: Path) -> tuple[bytes, bool]:
    try:
        return path.read_bytes(), os.access(path, os.X_OK)
    except OSError as error:
        raise ConfigError(f"--put: cannot read {path}: {error.strerror}") from error


def _got(machine: VirtualMachine, path: str) -> bytes:
    try:
        return machine.get(path)
    except OSError as error:
        raise WorkloadError(f"--get: {error}") from error
