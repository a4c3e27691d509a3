"""Names of attributes: those of the semantic conventions, and our own for system calls.

OpenTelemetry's semantic conventions have no attributes for system calls; ours are in the
namespace ``hyperbox``. Spans are searched by the names here.
"""

from __future__ import annotations

__all__ = [
    "CONTAINER_ID",
    "ERROR_TYPE",
    "PROCESS_PID",
    "SYSCALL_NAME",
    "THREAD_ID",
    "WINDOW_SYSCALLS",
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
