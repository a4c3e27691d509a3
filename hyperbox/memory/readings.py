"""What the tuner judges from: counters at one moment, and what they say about an interval. Pure.

The score is made so that it cannot be gamed by what the kernel chooses to call memory
pressure. A swap-in wait counts as memory stall only if the page was in the working set
(d8c47cc7bf60, Linux 5.18), otherwise as storage stall alone: the same thrash is 77-89 % memory
`some` on 5.10 and 4-15 % on 6.1, with storage `some` above 60 % on both. So storage stall counts
too, but only while pages come back from disk swap: a backup that reads a disk is not a memory
problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["SECOND_NS", "GroupCounters", "Interval", "Reading", "between", "joined"]

SECOND_NS = 1_000_000_000
"""Nanoseconds of a second."""


@dataclass(frozen=True)
class GroupCounters:
    """Counters of one cgroup: working set pages read back, and stall for memory or storage (us)."""

    refaults: int
    stall_us: int = 0


@dataclass(frozen=True)
class Reading:
    """Counters since boot at one moment.

    `time_ns` is CLOCK_MONOTONIC, `suspended_ns` how much CLOCK_BOOTTIME is ahead of it: it
    grows while the machine sleeps. Stalls are microseconds of `some` (and `full`), pages
    count what came back from (`swap_ins`) and went to (`swap_outs`) swap that is not zram.
    `swaps` names the active swap areas.
    """

    time_ns: int
    memory_some_us: int
    memory_full_us: int
    io_some_us: int
    swap_ins: int = 0
    swap_outs: int = 0
    suspended_ns: int = 0
    groups: Mapping[str, GroupCounters] = field(default_factory=dict)
    swaps: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Interval:
    """What happened between two readings: percent of stall, pages a second.

    `refaults` are pages of each cgroup's working set read back per second in which that
    cgroup did not stall: a step that halves the stall lets twice the work be done, and the
    refaults of that work are not a loss.
    """

    start_ns: int
    end_ns: int
    memory_some: float
    memory_full: float
    io_some: float
    swap_ins: float
    swap_outs: float
    refaults: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end_ns - self.start_ns) / SECOND_NS

    def score(self, swap_in_floor: float) -> float:
        """Return memory pressure, or storage pressure if more while pages come back from swap.

        `swap_in_floor` is how many pages a second make swapping more than noise.
        """
        storage = self.io_some if self.swap_ins >= swap_in_floor else 0.0
        return max(self.memory_some, storage)


_LEAST_WORKING = 0.05  # of the time: below that, refaults per working second are noise


def between(before: Reading, after: Reading) -> Interval | None:
    """Return what happened between two readings.

    None if they cannot be compared: time or a counter went backwards (another machine's
    reading, a cgroup made anew), or the machine slept between them.
    """
    passed_ns = after.time_ns - before.time_ns
    grown = [
        getattr(after, name) - getattr(before, name)
        for name in ("memory_some_us", "memory_full_us", "io_some_us", "swap_ins", "swap_outs")
    ]
    slept_ns = after.suspended_ns - before.suspended_ns
    if passed_ns <= 0 or min(grown) < 0 or abs(slept_ns) > SECOND_NS:
        return None
    seconds = passed_ns / SECOND_NS
    memory_some, memory_full, io_some = (min(us / seconds / 1e4, 100.0) for us in grown[:3])
    swap_ins, swap_outs = (pages / seconds for pages in grown[3:])
    refaults = {
        name: _refault_rate(before.groups[name], counters, seconds)
        for name, counters in after.groups.items()
        if name in before.groups
    }
    return Interval(
        start_ns=before.time_ns,
        end_ns=after.time_ns,
        memory_some=memory_some,
        memory_full=memory_full,
        io_some=io_some,
        swap_ins=swap_ins,
        swap_outs=swap_outs,
        refaults=refaults,
    )


def joined(intervals: Sequence[Interval]) -> Interval:
    """Return the mean over intervals, each weighted by its length; ValueError without any."""
    if not intervals:
        raise ValueError("no interval to average")
    whole = sum(one.seconds for one in intervals)

    def mean(values: Sequence[float]) -> float:
        parts = zip(intervals, values, strict=True)
        return sum(one.seconds * value for one, value in parts) / whole

    names = set.intersection(*(set(one.refaults) for one in intervals))
    return Interval(
        intervals[0].start_ns,
        intervals[-1].end_ns,
        mean([one.memory_some for one in intervals]),
        mean([one.memory_full for one in intervals]),
        mean([one.io_some for one in intervals]),
        mean([one.swap_ins for one in intervals]),
        mean([one.swap_outs for one in intervals]),
        {name: mean([one.refaults[name] for one in intervals]) for name in sorted(names)},
    )


def _refault_rate(before: GroupCounters, after: GroupCounters, seconds: float) -> float:
    stalled = max(after.stall_us - before.stall_us, 0) / 1e6
    working = max(seconds - stalled, seconds * _LEAST_WORKING)
    return max(after.refaults - before.refaults, 0) / working
