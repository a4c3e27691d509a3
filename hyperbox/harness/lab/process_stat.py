"""What the kernel says of a process: ``/proc/PID/stat`` and its threads' ``schedstat``.

Follows proc_pid_stat(5) and Documentation/scheduler/sched-stats.rst.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessStat", "parse_stat", "run_delay_seconds", "stat_of"]

_HALTS = {"T": "by a signal", "t": "by a debugger"}


@dataclass(frozen=True)
class ProcessStat:
    """State (a letter), and user and system time of all threads together in clock ticks."""

    state: str
    ticks: int

    @property
    def halted(self) -> str:
        """By what it is stopped; empty for a process that may run."""
        return _HALTS.get(self.state, "")

    @property
    def cpu_seconds(self) -> float:
        """CPU time in seconds."""
        return self.ticks / os.sysconf("SC_CLK_TCK")


def stat_of(pid: int) -> ProcessStat:
    """Read a process's state.

    Raises
    ------
    FileNotFoundError, ProcessLookupError
        If there is no such process; a zombie is one.
    """
    return parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))


def run_delay_seconds(pid: int) -> float:
    """Return the seconds that the threads of a process were ready to run without a processor.

    0 if the kernel does not say (CONFIG_SCHED_INFO) or there is no such process. What threads
    waited that have ended is not in it.
    """
    waited_ns = 0
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError, IndexError, ValueError):  # it may have ended
                waited_ns += int((thread / "schedstat").read_text().split()[1])
    return waited_ns / 1e9


def parse_stat(text: str) -> ProcessStat:
    """Understand the file; the name in it may hold anything, brackets and spaces included.

    Raises
    ------
    ValueError
        If it is none.
    """
    words = text.rpartition(")")[2].split()
    try:
        return ProcessStat(words[0], int(words[11]) + int(words[12]))
    except (IndexError, ValueError):
        raise ValueError(f"no stat file of a process: {text[:60]!r}") from None
