"""Names of attributes: those of the semantic conventions, and our own for system calls.

OpenTelemetry's semantic conventions have no attributes for system calls; ours are in the
namespace ``hyperbox``. Spans are searched by the names here.
"""

from __future__ import annotations

__all__ = [
    "CONTAINER_ID",
    "ERRNO_CALLS",
    "ERRNO_COUNTS",
    "ERRNO_TYPES",
    "ERROR_TYPE",
    "LATENCY_BELOW",
    "LATENCY_CALLS",
    "LATENCY_COUNTS",
    "LOST",
    "PROCESS_CALLS",
    "PROCESS_EXECUTED",
    "PROCESS_IO_URING",
    "PROCESS_PID",
    "PROCESS_RUNNING",
    "PROCESS_SIGNAL",
    "SPAN_KIND",
    "SYSCALL_ABI",
    "SYSCALL_APPROXIMATE",
    "SYSCALL_NAME",
    "SYSCALL_REASON",
    "SYSCALL_RESULT",
    "THREAD_ID",
    "WINDOW_ABIS",
    "WINDOW_COST",
    "WINDOW_COUNTS",
    "WINDOW_ERRORS",
    "WINDOW_MAX",
    "WINDOW_MODE",
    "WINDOW_SUM",
    "WINDOW_SYSCALLS",
    "WINDOW_TIMED",
]

# Of the semantic conventions.
PROCESS_PID = "process.pid"
CONTAINER_ID = "container.id"
THREAD_ID = "thread.id"
ERROR_TYPE = "error.type"
"""Of a single call: the error's name, such as ``ENOENT``."""

# Our own.
SYSCALL_NAME = "hyperbox.syscall.name"
"""Of a single call: its name, such as ``openat``."""
WINDOW_SYSCALLS = "hyperbox.window.syscalls"
"""Of a window: names of the calls in it, in the order of its counts."""
SPAN_KIND = "hyperbox.span.kind"
"""``process`` (a life), ``window``, ``call`` or ``unattributed``."""
PROCESS_CALLS = "hyperbox.process.calls"
"""Of a life: calls that were counted in all its windows."""
PROCESS_EXECUTED = "hyperbox.process.executed"
"""Of a life: how often it has executed a program."""
PROCESS_IO_URING = "hyperbox.process.io_uring"
"""Of a life: it uses io_uring, whose operations are not system calls and not seen here."""
PROCESS_RUNNING = "hyperbox.process.running"
"""Of a life: it goes on after the end of tracing."""
PROCESS_SIGNAL = "hyperbox.process.signal"
"""Of a life: the signal that ended it."""
SYSCALL_ABI = "hyperbox.syscall.abi"
"""Of a single call: ``x86_64``, ``i386`` or ``x32``."""
SYSCALL_REASON = "hyperbox.syscall.reason"
"""Of a single call: why it is here (slow, failed, exemplar, every)."""
SYSCALL_APPROXIMATE = "hyperbox.syscall.approximate"
"""Of a single call: its start is known to a tick of the kernel only."""
SYSCALL_RESULT = "hyperbox.syscall.result"
"""Of a single call: what it returned."""
WINDOW_MODE = "hyperbox.window.mode"
"""Of a window: what was looked at (full, hybrid, count, off)."""
WINDOW_COUNTS = "hyperbox.window.counts"
"""Of a window: how often each call entered; exact."""
WINDOW_ERRORS = "hyperbox.window.errors"
"""Of a window: how often each call failed."""
WINDOW_TIMED = "hyperbox.window.timed"
"""Of a window: how many of each call were timed."""
WINDOW_SUM = "hyperbox.window.sum_ns"
"""Of a window: time in those of each call that were timed."""
WINDOW_MAX = "hyperbox.window.max_ns"
"""Of a window: the longest of each call that was timed."""
WINDOW_ABIS = "hyperbox.window.abis"
"""Of a window with other ABIs than x86-64: that of each call."""
LATENCY_CALLS = "hyperbox.window.latency.calls"
"""Of a window's histograms: places of the calls in `WINDOW_SYSCALLS`."""
LATENCY_BELOW = "hyperbox.window.latency.below_ns"
"""Of a window's histograms: upper bounds of the buckets."""
LATENCY_COUNTS = "hyperbox.window.latency.counts"
"""Of a window's histograms: calls in the buckets."""
ERRNO_CALLS = "hyperbox.window.errno.calls"
"""Of a window's errors: places of the calls in `WINDOW_SYSCALLS`."""
ERRNO_TYPES = "hyperbox.window.errno.types"
"""Of a window's errors: their names."""
ERRNO_COUNTS = "hyperbox.window.errno.counts"
"""Of a window's errors: how often each came; the five most frequent of a call."""
LOST = "hyperbox.lost"
"""Of an unattributed span: what was lost in the window, a cause after the dot."""
WINDOW_COST = "hyperbox.window.cost"
"""Of a window: what tracing took of the CPU time that the machine was busy, from 0."""
