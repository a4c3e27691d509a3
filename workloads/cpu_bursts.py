"""Processes that want the same CPU at the same time, a little each period: CPU pressure.

They are pinned to one CPU and start on a common grid of time, so they compete on every
machine, and the CPU is idle in between. There is no chance in it, and so no seed. They run
until SIGINT or SIGTERM; the others end with the first.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workloads import command_line

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run until killed; return the exit code."""
    parser = command_line.parser(
        "cpu_bursts", __doc__, "python3 -m workloads.cpu_bursts --burst-ms 100"
    )
    parser.add_argument(
        "--processes", type=command_line.whole(1, 1000), default=2, help="that want the same CPU"
    )
    parser.add_argument(
        "--burst-ms", type=command_line.number(0.001), default=8.0, help="CPU time of each a period"
    )
    parser.add_argument(
        "--period-ms",
        type=command_line.number(0.001),
        default=500.0,
        help="from one burst to the next",
    )
    options = parser.parse_args(argv)
    if options.burst_ms >= options.period_ms:
        parser.error("bursts are shorter than their period")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    first = os.getpid()
    children: list[int] = []
    try:
        for _ in range(options.processes - 1):
            children.append(_fork(first, options.burst_ms, options.period_ms))
        _burn(first, options.burst_ms, options.period_ms)
    finally:
        for child in children if os.getpid() == first else ():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return 0


def _fork(first: int, burst_ms: float, period_ms: float) -> int:
    """Start a copy."""
    child = os.fork()
    if child == 0:
        _burn(first, burst_ms, period_ms)
        os._exit(0)
    return child


def _burn(first: int, burst_ms: float, period_ms: float) -> None:
    """Burst until the first process is gone, killed even."""
    period_ns = int(period_ms * 1e6)
    while first in (os.getpid(), os.getppid()):
        time.sleep((period_ns - time.monotonic_ns() % period_ns) / 1e9)
        end = time.thread_time_ns() + int(burst_ms * 1e6)
        while time.thread_time_ns() < end:
            pass


if __name__ == "__main__":
    sys.exit(command_line.ended(main))
