"""The suite's loads: a service, or a mix of stress-ng, beside a stream of file reads.

They share one limit, and a disk that is swapped to.

How the high load was chosen: its hot set is a little larger than the memory, and hot nearly all
over, so what is read back is working set, which every kernel counts as memory stall. (From 6.1
on, waiting for a page that was not in the working set counts as storage stall only; and the
kernel knows a cgroup's working set only after pages have gone round its lists a few times.) It
is warmed up at the pace that is measured until swap is written at a steady rate in every arm.

Its size favours compressed swap: 26 MiB on 24 fit once compressed. Much more would gain less.
The mix of stress-ng was written without regard to that.

Service and stream take no huge pages, nor do their Pythons (`workloads.command_line.ended`). When
these could, khugepaged made a nearly empty one of the service's own heap, 2 of the 24 MiB, at
some time in some starts: compressed swap filled, and starts of one arm differed more than arms did.
stress-ng is as it comes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.linux.cgroup import Cgroup, cgroup
from suites.squeeze import SteppedWorkload, squeeze, walker

__all__ = ["HIGH", "MEMORY_MIB", "MIXED", "NORMAL", "Place", "PressureLoad", "place", "running"]

MEMORY_MIB = 24
"""The memory of both workloads; in an arm with compressed swap, what that takes included."""

_DISK_MIB = 48
_LATENCY_NS = 3_000_000  # three milliseconds: network storage, a hard disk at its best


@dataclass(frozen=True)
class PressureLoad:
    """Options of the two workloads, as their command lines take them.

    `program` is the workload that is measured; `steps` are those before what is measured.
    With `small_pages` neither workload takes huge pages.
    """

    work: tuple[str, ...]
    stream: tuple[str, ...]
    program: str = "workloads/service.py"
    steps: tuple[str, ...] = ("filled", "warm")
    small_pages: bool = True


def _load(work: str, stream: str) -> PressureLoad:
    return PressureLoad(tuple(work.split()), tuple(stream.split()))


_STREAM = "workloads/file_stream.py"

HIGH = _load(
    "--mib 26 --hot-fraction 0.95 --hot-share 0.9 --warm-up 4000 --requests 1500 --think-us 2000",
    "--rate 0.25",
)
"""More than there is, hot nearly all over; one request after the other."""

NORMAL = _load(
    "--mib 20 --hot-fraction 0.35 --hot-share 0.9 --warm-up 200 --requests 1500 --rate 50",
    "--rate 0.5",
)
"""The service fits, 50 requests a second; the stream wants more than is left."""

MIXED = PressureLoad(
    ("--mix", "pressure", "--seconds", "600"),
    ("--rate", "0.25"),
    "workloads/stress.py",
    (),
    small_pages=False,
)
"""Batch work from its start to its end: memory, a file and computing at once."""


@dataclass(frozen=True)
class Place:
    """Where the workloads run: their cgroups below the limited one, and the swap disk."""

    top: Cgroup
    service: Cgroup
    stream: Cgroup
    disk: Path


@contextlib.contextmanager
def place(*, latency_ns: int = _LATENCY_NS) -> Iterator[Place]:
    """Make the cgroups and the disk; everything is undone when the block ends.

    Raises
    ------
    KernelFeatureMissing
        As `suites.squeeze.squeeze`.
    """
    with contextlib.ExitStack() as stack:
        outer = stack.enter_context(
            squeeze(limit_mib=MEMORY_MIB, disk_mib=_DISK_MIB, latency_ns=latency_ns)
        )
        service, stream = (
            stack.enter_context(cgroup(name, controllers=("memory",), root=outer.group.directory))
            for name in ("service", "stream")
        )
        yield Place(outer.group, service, stream, outer.disk)


@contextlib.contextmanager
def running(where: Place, load: PressureLoad, seed: int) -> Iterator[SteppedWorkload]:
    """Run both workloads until one is warm; gives that one, about to be measured.

    The stream reads until the end of the block, when both are killed.
    """
    options: Sequence[str] = ("--seed", str(seed))
    with (
        walker(where.stream, (*load.stream, *options), program=_STREAM) as stream,
        walker(where.service, (*load.work, *options), program=load.program) as work,
    ):
        for step in load.steps[:1]:
            work.go()
            work.expect(step)
        stream.go()
        for step in load.steps[1:]:
            work.go()
            work.expect(step)
        yield work
