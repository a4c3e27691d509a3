"""Processes that want the same CPU at the same time, a little each period: CPU pressure.

They are pinned to one CPU and start on a common grid of time, so they compete on every
machine, and the CPU is idle in between.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run until killed; give the exit code."""
    parser = argparse.ArgumentParser(prog="cpu_bursts", description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--burst-ms", type=float, default=8.0, help="CPU time of each a period")
    parser.add_argument("--period-ms", type=float, default=500.0)
    options = parser.parse_args(argv)
    if options.processes < 1 or not 0 < options.burst_ms < options.period_ms:
        parser.error("need a process, and bursts shorter than their period")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    children = [_fork(options.burst_ms, options.period_ms) for _ in range(options.processes - 1)]
    try:
        _burn(options.burst_ms, options.period_ms)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
    return 0


def _fork(burst_ms: float, period_ms: float) -> int:
    """Start a copy; the group is one session, which a parent ends as a whole."""
    child = os.fork()
    if child == 0:
        _burn(burst_ms, period_ms)
    return child


def _burn(burst_ms: float, period_ms: float) -> None:
    period_ns = int(period_ms * 1e6)
    while True:
        time.sleep((period_ns - time.monotonic_ns() % period_ns) / 1e9)
        end = time.thread_time_ns() + int(burst_ms * 1e6)
        while time.thread_time_ns() < end:
            pass


if __name__ == "__main__":
    sys.exit(main())
