"""Senpai: reclaim ahead of need, by a cgroup's own pressure and its memory.high.

The published control loop of facebookincubator/senpai (README and defaults of its first
version), written anew: each second the stall is added up. Above the target of 10 ms the
limit is raised by up to as much again; after 6 seconds below it the limit is lowered by up
to 1 %. Both steps grow with the square of how far the stall is from the target.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass

from hyperbox.errors import HyperboxError
from hyperbox.linux.cgroup import Cgroup
from hyperbox.linux.knob import KnobChange
from hyperbox.linux.pressure import parse_pressure

__all__ = ["Senpai", "SenpaiSettings", "State", "step"]

_PAGE = 4096


@dataclass(frozen=True)
class SenpaiSettings:
    """The published defaults; microseconds of stall, seconds, fractions of the limit."""

    target_us: int = 10_000
    interval_s: int = 6
    most_probe: float = 0.01
    most_backoff: float = 1.0
    probe_reach: float = 10.0
    backoff_reach: float = 20.0


@dataclass(frozen=True)
class State:
    """What the loop remembers: stall since the last change, seconds until it may probe."""

    stall_us: int = 0
    grace_s: int = 6


def step(state: State, grown_us: int, settings: SenpaiSettings) -> tuple[State, float]:
    """Return the state after a second with so much more stall, and how the limit changes.

    The change is a fraction of the limit: 0.5 raises it by half, 0 leaves it.
    """
    stall_us = state.stall_us + grown_us
    if stall_us > settings.target_us:
        reach = stall_us / settings.target_us / settings.backoff_reach
        change = min(reach**2 * settings.most_backoff, settings.most_backoff)
        return State(0, settings.interval_s - 1), change
    if state.grace_s:
        return State(stall_us, state.grace_s - 1), 0.0
    reach = settings.target_us / max(stall_us, 1) / settings.probe_reach
    change = -min(reach**2 * settings.most_probe, settings.most_probe)
    return State(0, settings.interval_s - 1), change


class Senpai:
    """The loop at work on a cgroup, between a least and a most limit in bytes."""

    def __init__(self, group: Cgroup, *, least: int, most: int) -> None:
        self._group = group
        self._least, self._most = least, most
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="senpai")
        self._high = KnobChange(group.directory / "memory.high")

    def __enter__(self) -> Senpai:
        self._set(int(self._group.read("memory.current")))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._high.restore()

    def _run(self) -> None:
        state, settings = State(), SenpaiSettings()
        total_us = self._total_us()
        while not self._ended.wait(1.0):
            now_us = self._total_us()
            state, change = step(state, now_us - total_us, settings)
            total_us = now_us
            if change:
                with contextlib.suppress(HyperboxError):  # the cgroup may be going away
                    self._set(int(self._limit * (1 + change)))

    def _set(self, limit: int) -> None:
        self._limit = max(self._least, min(self._most, limit)) // _PAGE * _PAGE
        self._high.apply(self._limit)

    def _total_us(self) -> int:
        some = parse_pressure(self._group.read("memory.pressure")).some
        return some.total_us if some else 0
