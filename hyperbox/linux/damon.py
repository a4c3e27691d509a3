"""DAMON-based proactive reclaim: the kernel pages out what nobody has touched for a while.

Follows Documentation/admin-guide/mm/damon/reclaim.rst (Linux 5.16). It works on the physical
memory of the machine, within a quota of time and bytes, and while the share of free memory
lies between its watermarks (in thousandths). DAMON has one user at a time: its statistics
(Documentation/admin-guide/mm/damon/stat.rst, Linux 6.17) keep reclaim out while they are on.
"""

from __future__ import annotations

from pathlib import Path

from hyperbox.errors import HyperboxError
from hyperbox.linux.knob import read_knob

__all__ = ["DAMON_RECLAIM", "damon_reclaim_present", "damon_stat_runs"]

DAMON_RECLAIM = Path("/sys/module/damon_reclaim/parameters")
"""Its settings: ``enabled``, ``min_age`` (us), ``quota_ms``, ``quota_sz``, ``wmarks_*`` ..."""


def damon_reclaim_present() -> bool:
    """Whether this kernel was built with it."""
    return (DAMON_RECLAIM / "enabled").exists()


def damon_stat_runs() -> bool:
    """Whether its statistics are on, which nothing else can work beside."""
    try:
        return read_knob(Path("/sys/module/damon_stat/parameters/enabled")) == "Y"
    except HyperboxError:
        return False
