"""Counters of the memory manager: ``/proc/vmstat``, see proc_vmstat(5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hyperbox.linux.cgroup import parse_flat_keyed
from hyperbox.linux.knob import read_knob

__all__ = ["vmstat"]


def vmstat(names: Sequence[str]) -> dict[str, int]:
    """Return some counters since boot, in pages or events; 0 for one this kernel lacks."""
    found = parse_flat_keyed(read_knob(Path("/proc/vmstat")))
    return {name: found.get(name, 0) for name in names}
