"""Whether spans carry every system call: against known counts, and against the kernel's own.

Each workload runs under the tracer, and beside it perf counts the tracepoint of entering calls for
the same processes. What windows carry is read from the spans, as a consumer would.
The governor is left out: an emulated processor would be beyond its budget most of the time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.linux.mounts import mounted
from hyperbox.linux.perf_counter import tracepoint_counter
from hyperbox.observability import attributes as names
from hyperbox.observability.command import exit_code, let_go, stopped_command
from hyperbox.observability.ebpf import Tracer, Window
from hyperbox.observability.instrument import Filter, Scope
from hyperbox.observability.modes import Mode
from hyperbox.observability.windows import SpanMaker
from suites.program import Measured, run_program

__all__ = ["WORKLOADS", "CallCounts", "Workload", "main"]

_WINDOW_S, _POLL_S = 0.5, 0.02
_STEADY = """
import ctypes
libc = ctypes.CDLL(None)
for _ in range(200_000): libc.syscall(312, 0, 0, 99, 0, 0)
"""
_THREADS = """
import ctypes, threading
libc = ctypes.CDLL(None)
def work():
    for _ in range(20_000): libc.syscall(312, 0, 0, 99, 0, 0)
threads = [threading.Thread(target=work) for _ in range(8)]
for one in threads: one.start()
for one in threads: one.join()
"""
_CHURN = """
import ctypes, os
libc = ctypes.CDLL(None)
for _ in range(600):
    if not os.fork():
        for _ in range(20): libc.syscall(312, 0, 0, 99, 0, 0)
        os._exit(0)
    if _ % 8 == 7:
        while True:
            try: os.wait()
            except ChildProcessError: break
"""
_PROGRAMS = "i=0; while [ $i -lt 150 ]; do /bin/true; i=$((i+1)); done"


@dataclass(frozen=True)
class Workload:
    """A command, and how many calls of kcmp(2) and exit_group(2) it makes."""

    command: Sequence[str]
    known: Mapping[str, int]


WORKLOADS: Mapping[str, Workload] = {
    "steady": Workload((sys.executable, "-c", _STEADY), {"kcmp": 200_000, "exit_group": 1}),
    "threads": Workload((sys.executable, "-c", _THREADS), {"kcmp": 160_000, "exit_group": 1}),
    "churn": Workload((sys.executable, "-c", _CHURN), {"kcmp": 12_000, "exit_group": 601}),
    "programs": Workload(("sh", "-c", _PROGRAMS), {"exit_group": 151}),
}


@dataclass(frozen=True)
class CallCounts:
    """What was counted of a workload."""

    counted: int
    """By the kernel."""
    carried: int
    """By spans."""
    unattributed: int
    lost: int
    wrong: int
    """Calls by which known counts are missed."""

    @property
    def unaccounted(self) -> int:
        """Calls that neither are in spans nor may be among the lost ones, or are too many.

        The kernel says how often it did not run the program, but not for whom: other processes'
        calls are among them, the tracer's own above all.
        """
        absent = self.counted - self.carried
        return max(0, absent - self.lost) if absent > 0 else -absent


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def _measure() -> Measured:
    with (
        # Its usual place, where the tracer looks for it too.
        mounted("tracefs", Path("/sys/kernel/tracing")) as tracing,
    ):
        found = {name: _traced(one, tracing) for name, one in WORKLOADS.items()}
    missing = {
        name: 100.0 * max(0, one.counted - one.carried) / one.counted for name, one in found.items()
    }
    metrics = {
        "missing": max(missing.values()),
        "unaccounted": float(sum(one.unaccounted for one in found.values())),
        "lost": float(sum(one.lost for one in found.values())),
        "wrong_counts": float(sum(one.wrong for one in found.values())),
        "unattributed": float(sum(one.unattributed for one in found.values())),
        "calls": float(sum(one.counted for one in found.values())),
    }
    return Measured(metrics, {name: vars(one) for name, one in found.items()})


def _traced(workload: Workload, tracing: Path) -> CallCounts:
    windows: list[Window] = []
    with (
        stopped_command(workload.command) as process,
        tracepoint_counter(tracing, "raw_syscalls/sys_enter", process.pid) as counter,
        Tracer(Scope(Filter.TREE), mode=Mode.HYBRID) as tracer,
    ):
        tracer.instrument.await_execve(process.pid)
        let_go(process)
        ends = time.monotonic() + _WINDOW_S
        while process.poll() is None:
            time.sleep(_POLL_S)
            tracer.poll()
            if time.monotonic() >= ends:
                ends += _WINDOW_S
                windows.append(tracer.read())
        windows.append(tracer.stop())
        if exit_code(process):
            raise WorkloadError(f"the workload failed with exit code {exit_code(process)}")
        counted = counter.read() + 1  # the execve with which it began
    return _compared(workload, windows, counted)


def _compared(workload: Workload, windows: Sequence[Window], counted: int) -> CallCounts:
    maker = SpanMaker()
    carried: dict[str, int] = {}
    unattributed = 0
    for window in windows:
        for span in (span for batch in maker.spans(window) for span in batch.spans):
            calls = span.attributes.get(names.WINDOW_SYSCALLS, ())
            counts = span.attributes.get(names.WINDOW_COUNTS, ())
            assert isinstance(calls, Sequence)
            assert isinstance(counts, Sequence)
            for call, count in zip(calls, counts, strict=True):
                carried[str(call)] = carried.get(str(call), 0) + int(str(count))
            if span.attributes[names.SPAN_KIND] == "unattributed":
                unattributed += sum(int(str(count)) for count in counts)
    return CallCounts(
        counted=counted,
        carried=sum(carried.values()),
        unattributed=unattributed,
        lost=sum(window.lost.get("not_run", 0) for window in windows),
        wrong=sum(abs(carried.get(call, 0) - count) for call, count in workload.known.items()),
    )


if __name__ == "__main__":
    sys.exit(main())
