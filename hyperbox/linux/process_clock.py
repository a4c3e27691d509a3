"""CPU time of another process, in nanoseconds. Follows clock_getcpuclockid(3)."""

from __future__ import annotations

import time

from hyperbox.linux.refusal import refusal

__all__ = ["process_cpu_ns"]

_SCHED = 2  # CPUCLOCK_SCHED of include/linux/posix-timers.h: the scheduler's exact sum


def process_cpu_ns(pid: int) -> int:
    """Return user plus system time of all threads of a process, without its children.

    Raises
    ------
    WorkloadError
        If there is no such process.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | _SCHED)
    except OSError as error:
        raise refusal(f"process {pid} is gone", error) from error
