"""The user's terminal while a guest's console has it: raw, and as it was afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from types import FrameType
from typing import Any

__all__ = ["LEAVE", "EscapeWatch", "RawTerminal"]

LEAVE = b"\x1d"
"""Ctrl-], pressed three times in a row, leaves a console, even that of a hanging guest."""
_TIMES = 3


class EscapeWatch:
    """Looks for the way out in what is typed; pure."""

    def __init__(self) -> None:
        self._seen = 0

    def feed(self, data: bytes) -> bool:
        """Whether `data`, after all before it, completes three Ctrl-] in a row."""
        for byte in data:
            self._seen = self._seen + 1 if byte == LEAVE[0] else 0
            if self._seen == _TIMES:
                return True
        return False


class RawTerminal:
    """A terminal in raw mode; a context manager that puts it back however the block ends.

    `fileno` becomes readable when the window was resized.

    Parameters
    ----------
    handle
        Descriptor of the terminal.
    """

    def __init__(self, handle: int) -> None:
        self._terminal = handle
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> RawTerminal:
        with contextlib.ExitStack() as stack:
            self._wake, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            stack.callback(os.close, self._wake)
            stack.callback(os.close, write)

            def resized(_number: int, _frame: FrameType | None) -> None:
                with contextlib.suppress(BlockingIOError):
                    os.write(write, b"x")

            stack.callback(signal.signal, signal.SIGWINCH, signal.signal(signal.SIGWINCH, resized))
            before: list[Any] = termios.tcgetattr(self._terminal)
            stack.callback(self._restore, before)
            tty.setraw(self._terminal)
            self._exits = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def fileno(self) -> int:
        """Return the descriptor that select(2) can wait on for a change of size."""
        return self._wake

    def size(self) -> tuple[int, int]:
        """Return rows and columns, and forget that they changed."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        rows, columns = termios.tcgetwinsize(self._terminal)
        return (rows or 24, columns or 80)

    def _restore(self, before: list[Any]) -> None:
        with contextlib.suppress(termios.error, OSError):  # hung up: nothing to put back
            termios.tcsetattr(self._terminal, termios.TCSADRAIN, before)
