"""What the kernel says of a process in ``/proc/PID/stat``; follows proc_pid_stat(5)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessStat", "parse_stat", "stat_of"]

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
