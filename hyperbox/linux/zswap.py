"""zswap: compressed memory in front of disk swap.

Follows Documentation/admin-guide/mm/zswap.rst (Linux 3.11; ``shrinker_enabled`` in 6.8,
b5ba474f3f51, which writes pages back to disk before the pool is full).
"""

from __future__ import annotations

from pathlib import Path

from hyperbox.errors import HyperboxError
from hyperbox.linux.knob import read_knob

__all__ = ["ZSWAP", "zswap_enabled", "zswap_present"]

ZSWAP = Path("/sys/module/zswap/parameters")
"""Its settings: ``enabled``, ``compressor``, ``max_pool_percent``, ``shrinker_enabled`` ..."""


def zswap_present() -> bool:
    """Whether this kernel was built with it."""
    return (ZSWAP / "enabled").exists()


def zswap_enabled() -> bool:
    """Whether pages go through it now."""
    try:
        return read_knob(ZSWAP / "enabled") == "Y"
    except HyperboxError:
        return False
