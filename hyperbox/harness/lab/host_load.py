"""How busy the host is: load averages, and time that its own hypervisor took from it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["host_load", "steal_seconds"]


def host_load() -> dict[str, object]:
    """Return load averages and the steal time since boot (s), for the record."""
    steal = None
    with contextlib.suppress(OSError):
        steal = steal_seconds(Path("/proc/stat").read_text(), os.sysconf("SC_CLK_TCK"))
    return {"load": list(os.getloadavg()), "steal_s": steal}


def steal_seconds(stat: str, ticks: int) -> float | None:
    """Return the steal time of all CPUs in ``/proc/stat`` (proc(5)); None if it has none."""
    fields = stat.partition("\n")[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    return int(fields[8]) / ticks
