"""Exceptions by which a signal ends a program, raised until they are heard.

A Python signal handler runs wherever the main thread happens to be. In the callback of a weak
reference (every import has some), in a finalizer or while garbage is collected, the interpreter
prints what it raises and goes on (`sys.unraisablehook`): the signal is lost, and a handler that
holds back later ones has made the program deaf. Follows the notes on handlers and exceptions in
the documentation of Python's `signal`, and that of `sys.unraisablehook`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

__all__ = ["reraise_lost_signals"]

_AGAIN_S = 0.001  # out of the callback by then; else once more
_ENDS = (KeyboardInterrupt, SystemExit)


@contextlib.contextmanager
def reraise_lost_signals() -> Iterator[None]:
    """Raise a KeyboardInterrupt or SystemExit that the main thread lost again, until this is left.

    SIGALRM and its timer are used from the moment one is lost, and given back at the end.
    Entered in another thread, where no signal handler runs, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with contextlib.ExitStack() as stack:
        before = sys.unraisablehook

        def hook(lost: sys.UnraisableHookArgs) -> None:
            value = lost.exc_value
            ours = threading.current_thread() is threading.main_thread()
            if not ours or not isinstance(value, _ENDS):
                before(lost)
                return

            def again(_number: int, _frame: FrameType | None) -> NoReturn:
                raise type(value)(*value.args)

            stack.callback(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, again))
            stack.callback(signal.setitimer, signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)

        sys.unraisablehook = hook
        stack.callback(setattr, sys, "unraisablehook", before)
        yield
