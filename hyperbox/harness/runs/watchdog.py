"""Ends a whole attempt at a cell that takes too long, wherever its thread hangs.

Boots and commands have limits of their own. A cell whose parts all keep theirs, or whose
thread waits in a call that has none, meets this one: its machine is killed under it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from hyperbox.errors import CellTimeout, HarnessError

__all__ = ["Watchdog"]

_AGAIN_S = 0.2  # the thread may just have been about to start another process


class Watchdog:
    """Use as a context manager around the work; what fails in it after the limit is its doing.

    Parameters
    ----------
    limit
        Host seconds until `end` is called, again and again until the work is left.
    end
        Ends what the work waits for. Called on a thread of its own.
    """

    def __init__(self, limit: float, end: Callable[[], None]) -> None:
        self._limit = limit
        self._end = end
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.doing = "getting ready"
        """What the work is at, for the error."""
        self.expired = False

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._left.set()
        self._thread.join()
        if self.expired and isinstance(error, Exception):
            raise self._overdue(error) from error

    def check(self) -> None:
        """Raise `CellTimeout` after the limit: nothing may begin any more."""
        if self.expired:
            raise self._overdue(None)

    def _watch(self) -> None:
        if self._left.wait(self._limit):
            return
        self.expired = True
        while not self._left.is_set():
            self._end()
            self._left.wait(_AGAIN_S)

    def _overdue(self, error: Exception | None) -> CellTimeout:
        if isinstance(error, CellTimeout):
            return error
        overdue = CellTimeout(
            f"the cell was not done after {self._limit:g} s (its experiment's limit_s), "
            f"but {self.doing}",
            fingerprint=f"cell overdue: {self.doing.partition(':')[0]}",
        )
        if isinstance(error, HarnessError):
            overdue.console = error.console
        return overdue
