"""Trials of the tuner's steps: what was before against what came after. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hyperbox.memory.decisions import Rules
from hyperbox.memory.readings import Interval, joined

__all__ = ["Trial", "compared", "fault", "measured", "missed"]

_LITTLE_IO = 1.0  # percent


@dataclass(frozen=True)
class Trial:
    """The step on trial: since when, and what was before."""

    step: str
    since_ns: int
    before: Interval


def measured(window: Sequence[Interval], rules: Rules) -> Interval | None:
    """Return the mean over the last seconds; None if there are too few to say anything."""
    for number in range(1, len(window) + 1):
        last = window[-number:]
        if last[-1].end_ns - last[0].start_ns >= rules.measure_ns - rules.late_ns:
            return joined(last)
    return None


def fault(before: Interval, after: Interval, rules: Rules) -> str:
    """Say why a step did not pay; empty if it did."""
    floor = rules.swap_in_floor
    if not _fell(before.score(floor), after.score(floor), rules):
        return f"the score did not fall by {rules.gain:.0%}"
    # Without storage pressure to speak of there is none to lower: it must not appear.
    if after.io_some > _LITTLE_IO and not _fell(before.io_some, after.io_some, rules):
        return f"storage pressure did not fall by {rules.gain:.0%}"
    return missed(before, after, rules)


def missed(before: Interval, after: Interval, rules: Rules) -> str:
    """Say which cgroup reads back more of its working set since a step; empty if none does."""
    for name, rate in after.refaults.items():
        was = before.refaults.get(name)
        if was is not None and rate > was * (1 + rules.refault_rise) + rules.refault_floor:
            return f"refaults of {name} rose from {was:.0f} to {rate:.0f} a working second"
    return ""


def _fell(before: float, after: float, rules: Rules) -> bool:
    """Whether pressure fell by enough.

    A closed loop that waits 99 % of its time still waits 97 % when it does three times the
    work: there the time left for work says more.
    """
    if after <= before * (1 - rules.gain):
        return True
    return before >= rules.saturated and 100 - after > (100 - before) * (1 + rules.work_gain) + 0.1


def compared(before: Interval, after: Interval, rules: Rules) -> str:
    """Say how the score and storage pressure changed."""
    floor = rules.swap_in_floor
    return (
        f"score {before.score(floor):.1f} -> {after.score(floor):.1f}, "
        f"io {before.io_some:.1f} -> {after.io_some:.1f}"
    )
