"""The ``hyperbox`` command: finds the verb, prints expected errors as one line each."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import io
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hyperbox
from hyperbox import interruption
from hyperbox.errors import (
    ConfigError,
    ExitCode,
    HarnessError,
    HyperboxError,
    MissingDependency,
    near,
)
from hyperbox.printing import complain, legible, print_error

__all__ = ["main"]

_VERBS = {
    "validate": "boot kernels, measure, and give a verdict on every gate",
    "reproduce": "measure a run's exact cells again and compare bit for bit",
    "report": "make the report of a run again",
    "calibrate": "measure how often verdicts err",
    "compare": "compare two runs, or two kernels of a run",
    "merge": "join runs of one plan that were measured on several machines",
    "kernels": "list, fetch, lock and update kernels",
    "guests": "list, lock and update the packages that guests are made of",
    "exec": "run a command under a kernel, or in a container that runs",
    "shell": "open a console in a guest",
    "bisect": "find the kernel with which a gate or a command changed",
    "doctor": "say what this machine can do and what is missing",
    "psi": "watch this machine's pressure",
    "daemon": "serve this machine's pressure over HTTP",
    "pull": "get an image from a registry, a layout or an archive",
    "push": "send an image of the store to a registry",
    "images": "list, inspect, verify, export and prune the images of the store",
    "trace": "trace system calls of a command, a process, a cgroup or the machine",
    "run": "run a command in a container, learning or enforcing its seccomp profile",
    "ps": "list containers",
    "logs": "print what a container in the background printed",
    "stop": "end containers",
    "rm": "remove containers that have ended",
    "seccomp": "list, show, generate, validate, audit and export learned seccomp profiles",
}
_EXTRAS = {
    "doctor": "",
    "psi": "",
    "daemon": "[daemon]",
    "pull": "[storage]",
    "push": "[storage]",
    "images": "[storage]",
    "trace": "[tracing]",
    **dict.fromkeys(("run", "ps", "logs", "stop", "rm"), "[containers]"),
    "seccomp": "[containers]",
}
"""What pip installs a verb's packages with; of all others it is the harness."""
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = 5
_BROKEN_PIPE = 128 + signal.SIGPIPE
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class _Parser(argparse.ArgumentParser):
    """Bad usage is a `ConfigError` like any other wrong input; options are written out."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint=f"see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code; that of a crash is a harness error's."""
    words = list(sys.argv[1:] if argv is None else argv)
    _need_streams()
    try:
        try:
            return _status(words)
        finally:
            sys.stdout.flush()  # what the interpreter fails to flush at its end is status 120
    except BrokenPipeError:
        _abandon_output()
        return _BROKEN_PIPE
    except OSError as error:
        complain(f"hyperbox: error: cannot write the output: {error.strerror}")
        _abandon_output()
        return ExitCode.HARNESS_ERROR


def _status(words: list[str]) -> int:
    """Run a verb; raises what writing to a closed or full standard output raises, no more."""
    try:
        with _stoppable():
            return _run(words)
    except HyperboxError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt as error:
        complain("hyperbox: interrupted")
        if error.args:
            complain(f"hint: {error}")
        return ExitCode.INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            raise
        if isinstance(error, ModuleNotFoundError) and _is_foreign(error):
            print_error(_absent(error, words[0]))
            return ExitCode.HARNESS_ERROR
        _explain_crash(error)
        return ExitCode.HARNESS_ERROR


def _explain_crash(error: Exception) -> None:
    """Say that we are broken, unless nothing could work in a directory that is gone."""
    try:
        Path.cwd()
    except OSError as gone:
        print_error(HarnessError(f"no current directory: {gone.strerror}", hint="cd elsewhere"))
        return
    with contextlib.suppress(OSError):
        print(legible("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    complain("hyperbox: error: this is a bug in hyperbox: please report it with the lines above")


def _is_foreign(error: ModuleNotFoundError) -> bool:
    """Whether what is not there is neither Python's nor ours."""
    package = (error.name or "hyperbox").partition(".")[0]
    return package not in {"hyperbox", *sys.stdlib_module_names}


def _absent(error: ModuleNotFoundError, verb: str) -> MissingDependency:
    """Say which package a verb lacks, and the command that installs it."""
    package = (error.name or "").partition(".")[0]
    return MissingDependency(
        f"hyperbox {verb} needs the Python package {package}, which is not installed",
        hint=f"pip install 'hyperbox{_EXTRAS.get(verb, '[harness]')}'",
    )


def _run(words: list[str]) -> int:
    parser = _Parser(
        prog="hyperbox",
        description=hyperbox.__doc__,
        epilog="exit codes: 0 pass, 1 a gate failed, 2 inconclusive (--strict), "
        "3 harness error, 64 bad usage, 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"hyperbox {hyperbox.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    chosen = words[0] if words else ""
    if chosen not in _VERBS and not chosen.startswith("-"):
        wrong = f"no verb {chosen!r}" if chosen else "no verb given"
        raise ConfigError(wrong, hint=near(chosen, _VERBS))
    for name, summary in _VERBS.items():
        if name == chosen:  # the others are not imported: they may be slow
            importlib.import_module(f"hyperbox.cli.{name}").add_parser(verbs)
        else:
            verbs.add_parser(name, help=summary)
    arguments = parser.parse_args(words)
    return int(arguments.run(arguments))


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt.

    Later ones are held back while things are tidied; the fifth ends the process at once.
    """
    received = 0

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received == 1:
            raise KeyboardInterrupt
        if received >= _PATIENCE:
            os._exit(ExitCode.INTERRUPTED)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    heard = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        with interruption.reraise_lost_signals():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _need_streams() -> None:
    """Let output go nowhere where the caller has closed it; Python has None for it then.

    A letter that a stream's encoding lacks is written as an escape.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for the process's life
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _nobody_reads() -> bool:
    """Whether the reader of our own output is gone: else a broken pipe is a bug of ours."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            poll.register(stream.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _abandon_output() -> None:
    """Let the interpreter's last flush go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
