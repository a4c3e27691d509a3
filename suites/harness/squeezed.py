"""The load on memory: going round in half again as much memory as its cgroup may hold.

In order, since pages that went longest ago are the next to be needed: every page is read back
from swap each time, and equal units do equal work. One page at a time: which neighbours are
read along depends on the order of slots on the disk, so on the start: equal arms that read
ahead differed by up to 1.6 % (5.10).
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping

from hyperbox.linux.knob import changed, sysctl
from hyperbox.linux.pressure import PressureFile, Resource
from hyperbox.linux.vmstat import vmstat
from suites.harness.load import Load, Ready
from suites.psi.program import seed
from suites.psi.squeeze import MEBIBYTE, squeeze
from workloads.memory_walk import PAGE, Plan, fill

__all__ = ["SWAP"]

_WALK_MIB = 12
_LIMIT_MIB = 8
_PAGES = 32  # of one unit
_LATENCY_NS = 500_000  # of one request: an SSD across a network


@contextlib.contextmanager
def _swap() -> Iterator[Ready]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(changed(sysctl("vm.page-cluster"), 0))
        place = stack.enter_context(
            squeeze(limit_mib=_LIMIT_MIB, disk_mib=2 * _WALK_MIB, latency_ns=_LATENCY_NS)
        )
        directory = place.group.directory
        memory = stack.enter_context(PressureFile(Resource.MEMORY, directory / "memory.pressure"))
        storage = stack.enter_context(PressureFile(Resource.IO, directory / "io.pressure"))
        place.group.add(os.getpid())
        plan = Plan(mib=_WALK_MIB, accesses=1, seed=seed())
        pages = stack.enter_context(contextlib.closing(fill(plan)))
        places = itertools.cycle(range(0, _WALK_MIB * MEBIBYTE, PAGE))

        def unit() -> None:
            for offset in itertools.islice(places, _PAGES):
                pages[offset] = 1

        def counters() -> Mapping[str, float]:
            return {
                "memory_some_us": _some_us(memory),
                "io_some_us": _some_us(storage),
                "swap_in": vmstat(("pswpin",))["pswpin"],
            }

        yield Ready(unit, counters)


def _some_us(file: PressureFile) -> float:
    line = file.read().some
    return line.total_us if line is not None else 0


# Warmed up by a whole round: only then all that is read back was written out in this order.
SWAP = Load(200, _swap, warm_up=_WALK_MIB * MEBIBYTE // PAGE // _PAGES)
