"""The tracer as a source of spans, in a thread of its own: windows, and calls as they come."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from hyperbox.daemon.services.traces import Sink
from hyperbox.errors import HarnessError, HyperboxError
from hyperbox.observability.ebpf import Tracer, Window
from hyperbox.observability.governor import BUDGET
from hyperbox.observability.instrument import Scope
from hyperbox.observability.windows import SpanMaker, machine_attributes

__all__ = ["TracerSource"]

_WINDOW_S, _POLL_S = 1.0, 0.05


class TracerSource:
    """Makes spans of the processes in a scope; see `hyperbox.daemon.services.traces.SpanSource`.

    Parameters
    ----------
    budget
        What tracing may take of the CPU time that the machine is busy, from 0 to 1.
    """

    def __init__(self, scope: Scope, *, budget: float = BUDGET) -> None:
        self._tracer = Tracer(scope, budget=budget)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._lost: Counter[str] = Counter()
        self._last: Window | None = None
        self._calls = self._skipped = self._windows = 0
        self._trouble: HyperboxError | None = None

    def start(self, sink: Sink, followed: Callable[[], bool]) -> None:
        """Begin to trace; see `SpanSource.start`."""
        maker = SpanMaker(machine_attributes(os.environ))
        self._tracer.__enter__()
        self._thread = threading.Thread(
            target=self._run, args=(maker, sink, followed), name="tracer", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the last window, and tracing."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def report(self) -> Mapping[str, object]:
        """Return mode and cost of the last window, and calls since the start."""
        with self._guard:
            found = {"windows": self._windows, "calls": self._calls, "skipped": self._skipped}
            if self._last is None:
                return found
            cost = round(self._last.cost, 6)
            return {"mode": self._last.mode.name.lower(), "cost": cost, **found}

    def lost(self) -> Mapping[str, int]:
        """Return what the tracer has lost since its start, by cause."""
        with self._guard:
            return dict(self._lost)

    def trouble(self) -> HyperboxError | None:
        """Return what has ended it, if anything has."""
        return self._trouble

    def _run(self, maker: SpanMaker, sink: Sink, followed: Callable[[], bool]) -> None:
        try:
            ends = time.monotonic() + _WINDOW_S
            while not self._over.wait(_POLL_S):
                if followed():  # who follows the stream sees calls now, not at the window's end
                    calls = self._tracer.take_calls()
                    sink(maker.calls(calls, self._tracer.window_start_ns))
                else:
                    self._tracer.poll()
                if time.monotonic() >= ends:
                    ends += _WINDOW_S
                    self._take(self._tracer.read(), maker, sink)
            self._take(self._tracer.stop(), maker, sink)
            running = [life for life in self._tracer.lives.running() if life.calls]
            sink(maker.running(running, time.monotonic_ns()))
        except HyperboxError as error:
            self._trouble = error
        except Exception as error:
            self._trouble = HarnessError(f"the tracer broke: {type(error).__name__}: {error}")
            raise
        finally:
            self._tracer.__exit__(None, None, None)

    def _take(self, window: Window, maker: SpanMaker, sink: Sink) -> None:
        with self._guard:
            self._last = window
            self._windows += 1
            self._calls += window.count
            self._skipped += window.skipped
            self._lost.update(window.lost)
        sink(maker.spans(window))
