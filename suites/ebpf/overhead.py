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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.files import write_text
from hyperbox.observability.ebpf import Tracer, Window
from hyperbox.observability.instrument import Scope
from hyperbox.observability.otlp_protobuf import encode
from hyperbox.observability.windows import SpanMaker
from hyperbox.processes import require, spawn, stop
from suites.program import Measured, run_program

__all__ = ["WORKS", "main"]

_WINDOW_S, _POLL_S = 1.0, 0.05
_PATIENCE_S = 60.0
_C = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int compare(const void *a, const void *b) { return strcmp(a, b); }
int main(int argc, char **argv) {
    char names[64][16];
    for (int i = 0; i < 64; i++) snprintf(names[i], 16, "%d", i * argc % 61);
    qsort(names, 64, 16, compare);
    return puts(names[atoi(argv[argc - 1]) % 64]) < 0;
}
"""
_MAKE = "i=0; while [ $i -lt {count} ]; do gcc -O2 -o made$i made.c || exit 1; i=$((i+1)); done"
_LOAD = "redis-benchmark -p 6399 -q -c 20 -n {count} -t set,get"


@contextlib.contextmanager
def _redis(directory: Path) -> Iterator[None]:
    words = ("redis-server", "--port", "6399", "--save", "", "--dir", str(directory))
    server = spawn([require("redis-server", "redis-server"), *words[1:]])
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while _status("redis-cli -p 6399 ping", directory):
            if time.monotonic() > deadline:
                raise WorkloadError(f"redis does not answer after {_PATIENCE_S:g} s")
            time.sleep(0.1)
        yield
    finally:
        stop(server)


@contextlib.contextmanager
def _gcc(directory: Path) -> Iterator[None]:
    require("gcc", "gcc")
    write_text(directory / "made.c", _C)
    yield


WORKS: Mapping[str, tuple[Callable[[Path], contextlib.AbstractContextManager[None]], str, int]] = {
    "redis": (_redis, _LOAD, 20_000),
    "gcc": (_gcc, _MAKE, 12),
}
"""What it needs, the command, and how much of it is done."""


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


def _measure(work: str, *, traced: bool) -> Measured:
    prepare, command, count = WORKS[work]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        stack.enter_context(prepare(directory))
        tracing = _Tracing(stack.enter_context(Tracer(Scope()))) if traced else None
        _run(command.format(count=count // 4), directory, tracing)
        if tracing is not None:
            tracing.end_window()
            tracing.windows.clear()
        before_ns = time.monotonic_ns()
        _run(command.format(count=count), directory, tracing)
        if tracing is not None:  # the work may be done within a window
            tracing.end_window()
        elapsed_ns = time.monotonic_ns() - before_ns
    windows = [] if tracing is None else tracing.windows
    calls = sum(window.count for window in windows)
    spent_ns = sum(window.end_ns - window.start_ns for window in windows)
    metrics = {
        "elapsed_us": elapsed_ns / 1000,
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


def _run(command: str, directory: Path, tracing: _Tracing | None) -> None:
    process = spawn(("sh", "-c", command), cwd=directory)
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
    if process.returncode:
        raise WorkloadError(f"exit status {process.returncode}: {command}")


def _status(command: str, directory: Path) -> int:
    process = spawn(("sh", "-c", command), cwd=directory)
    try:
        return process.wait()
    finally:
        stop(process)


if __name__ == "__main__":
    sys.exit(main())
