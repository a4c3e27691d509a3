"""CPU time of the whole machine. Follows proc_stat(5)."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["busy_cpu_ns"]

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def busy_cpu_ns() -> int:
    """Return what all processors have spent on anything since boot, guests and interrupts too."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, line.split()[1:])
    return (user + nice + system + irq + softirq) * _TICK_NS
