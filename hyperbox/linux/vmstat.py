"""Counters of memory management: ``/proc/vmstat``."""

from __future__ import annotations

from pathlib import Path

__all__ = ["parse", "read"]


def parse(text: str) -> dict[str, int]:
    """Parse ``/proc/vmstat``: one name and one number a line."""
    pairs = (line.split() for line in text.splitlines())
    return {name: int(value) for name, value in pairs}


def read() -> dict[str, int]:
    """Give the counters now."""
    return parse(Path("/proc/vmstat").read_text())
