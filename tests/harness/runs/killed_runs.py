"""Validations in processes of their own that die where a test says.

They are forked from a server that has imported everything: a run costs what it measures.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from hyperbox.cli.main import main

__all__ = ["BEGUN", "OPERATIONS", "start"]

BEGUN = "begun"
"""File that appears where a run works when a signal ends it as it would end a program."""

OPERATIONS = "operations"
"""File that a run leaves beside its run directory: how many store operations it took."""

_CONTEXT = multiprocessing.get_context("forkserver")
_MODULES = ["cli.validate", "cli.report", "harness.runs.validation", "harness.report.page"]


def start(words: Sequence[str], place: Path, fatal: int = 0) -> ForkServerProcess:
    """Start ``hyperbox WORDS`` in `place`; SIGKILL itself before store operation `fatal`.

    Store operations are the files opened for writing, flushed, renamed and removed in the
    run directory, which is called ``run``.
    """
    _CONTEXT.set_forkserver_preload([__name__, *(f"hyperbox.{name}" for name in _MODULES)])
    process = _CONTEXT.Process(target=_validate, args=(list(words), place, fatal))
    process.start()
    return process


def _validate(words: list[str], place: Path, fatal: int) -> None:
    os.chdir(place)
    os.environ["HYPERBOX_CACHE"] = os.fspath(place / "cache")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Path(BEGUN).touch()
    with Path("said").open("ab") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    operations = _Operations(place / "run", fatal)
    status = main(words)
    Path(OPERATIONS).write_text(str(operations.count))
    sys.exit(status)


class _Operations:
    """Counts what is done to the run directory, and ends the process at one of them."""

    def __init__(self, directory: Path, fatal: int) -> None:
        self.count = 0
        self._names = (f"{directory.absolute()}{os.sep}", f"{directory.name}{os.sep}")
        self._fatal = fatal
        self._lock = threading.Lock()
        self._flush = os.fsync
        sys.addaudithook(self._hear)
        os.fsync = self._fsync

    def _hear(self, event: str, details: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (
            event == "open" and isinstance(details[2], int) and details[2] & os.O_ACCMODE
        ):
            with contextlib.suppress(TypeError):  # a descriptor
                if os.fsdecode(details[0]).startswith(self._names):
                    self._one()

    def _fsync(self, fd: Any) -> None:
        self._one()
        self._flush(fd)

    def _one(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)
