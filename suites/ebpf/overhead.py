"""What tracing the whole machine takes from a fixed amount of production work.

The guest has one processor, so that the elapsed time of work that keeps it busy is that of
workload, kernel and tracer together. The tracer runs as it would in production: governed, with
spans made and encoded. The work is done once before, which warms caches and lets the governor
settle; Python's start and the loading of programs are not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.observability.ebpf import Tracer, Window
from hyperbox.observability.instrument import Scope
from hyperbox.observability.otlp_protobuf import encode
from hyperbox.observability.windows import SpanMaker
from hyperbox.processes import spawn, stop
from suites.ebpf.works import WORKS
from suites.program import Measured, run_program

__all__ = ["main"]

_WINDOW_S, _POLL_S = 1.0, 0.05


class _Tracing:
    """The tracer between two looks at the workload."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._maker = SpanMaker()
        self._ends = time.monotonic() + _WINDOW_S
        self.windows: list[Window] = []
        self.bytes = 0

    def go_on(self) -> None:
        """Take what has come, and end the window if it is time."""
        self._tracer.poll()
        if time.monotonic() >= self._ends:
            self._ends += _WINDOW_S
            self.end_window()

    def end_window(self) -> None:
        """Take the window as it is, make its spans and encode them."""
        window = self._tracer.read()
        self.windows.append(window)
        self.bytes += len(encode(self._maker.spans(window)))


def main() -> int:
    """Measure; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", choices=tuple(WORKS), required=True)
    parser.add_argument("--arm", choices=("untraced", "traced"), required=True)
    chosen = parser.parse_args()
    return run_program(lambda: _measure(chosen.work, traced=chosen.arm == "traced"))


def _measure(name: str, *, traced: bool) -> Measured:
    work = WORKS[name]
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        directory = Path(place)
        directory.chmod(0o755)  # servers drop their privileges
        stack.enter_context(work.prepared(directory))
        tracing = _Tracing(stack.enter_context(Tracer(Scope()))) if traced else None
        _run(work.command(warming=True), directory, tracing)
        if tracing is not None:
            tracing.end_window()
            tracing.windows.clear()
        before_ns = time.monotonic_ns()
        output = _run(work.command(), directory, tracing)
        if tracing is not None:  # the work may be done within a window
            tracing.end_window()
        elapsed_ns = time.monotonic_ns() - before_ns
    windows = [] if tracing is None else tracing.windows
    calls = sum(window.count for window in windows)
    spent_ns = sum(window.end_ns - window.start_ns for window in windows)
    metrics = {
        "elapsed_us": elapsed_ns / 1000 / work.done(output),
        "calls_per_second": 1e9 * calls / spent_ns if spent_ns else 0.0,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    modes = [window.mode.name.lower() for window in windows]
    notes = {
        "modes": {mode: modes.count(mode) for mode in set(modes)},
        "costs": [round(window.cost, 4) for window in windows],
        "encoded_bytes": 0 if tracing is None else tracing.bytes,
    }
    return Measured(metrics, notes)


def _run(command: str, directory: Path, tracing: _Tracing | None) -> str:
    """Run a command, which is traced or not; return what it printed."""
    with tempfile.TemporaryFile() as stream:
        process = spawn(("sh", "-c", command), cwd=directory, stdout=stream)
        try:
            while process.poll() is None:
                if tracing is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_WINDOW_S)
                else:
                    time.sleep(_POLL_S)
                    tracing.go_on()
        finally:
            stop(process)
        stream.seek(0)
        output = stream.read().decode(errors="replace")
    if process.returncode:
        raise WorkloadError(f"exit status {process.returncode}: {command}: {output.strip()}")
    return output


if __name__ == "__main__":
    sys.exit(main())
