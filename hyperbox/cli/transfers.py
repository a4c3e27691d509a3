"""How far pulls and pushes are: a line per layer, with rate and time left."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from hyperbox.console import TerminalConsole
from hyperbox.storage.oci import Descriptor
from hyperbox.storage.pull import Progress as Watcher
from hyperbox.storage.pull import Silent

__all__ = ["shown_progress"]

_DIGITS = 12  # of a digest, as docker shows them


class _Lines:
    """A bar per blob on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}

    def begin(self, descriptor: Descriptor) -> None:
        """Add a line."""
        with self._lock:
            if descriptor.digest not in self._tasks:
                name = descriptor.digest.partition(":")[2][:_DIGITS]
                self._tasks[descriptor.digest] = self._progress.add_task(
                    name, total=descriptor.size
                )

    def at(self, descriptor: Descriptor, size: int) -> None:
        """Move a line."""
        self._progress.update(self._tasks[descriptor.digest], completed=size)


@contextlib.contextmanager
def shown_progress(*, quiet: bool) -> Iterator[Watcher]:
    """Yield who shows progress on standard error; nothing is shown where no terminal is."""
    console = TerminalConsole(file=sys.stderr)
    if quiet or not console.is_terminal or console.is_dumb_terminal:
        yield Silent()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Lines(progress)
