"""Steps that take memory from where it is wanted least: streaming cgroups, idle pages.

Only cgroups that their owner has named as streaming are touched: jobs that read much and
each page once, such as backups and log shippers.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hyperbox.errors import HyperboxError, KernelFeatureMissing
from hyperbox.linux.cgroup import Cgroup
from hyperbox.linux.damon import DAMON_RECLAIM, damon_reclaim_present, damon_stat_runs
from hyperbox.linux.knob import KnobChange, read_knob
from hyperbox.linux.page_cache import can_reclaim_files, drop_open_files, reclaim_files
from hyperbox.memory.actuators import KnobActuator, put_back

__all__ = ["MemoryHighActuator", "PageCacheActuator", "damon"]

_NONE_NAMED = "no cgroup is named as streaming"
_MIB = 1 << 20
_LEAST_HIGH = 16 * _MIB
_LOOKS, _BETWEEN_LOOKS_S = 20, 0.01  # small files are open for moments only


class PageCacheActuator:
    """Gives up the page cache of streaming cgroups at each reading."""

    name = "page-cache"
    title = "give up page cache that streaming cgroups read once"

    def __init__(self, streaming: Sequence[Path]) -> None:
        self._streaming = tuple(streaming)

    def unavailable(self) -> str:
        """Say why there is none to give up."""
        if not self._streaming:
            return _NONE_NAMED
        if not any(group.is_dir() for group in self._streaming):
            return "no streaming cgroup is there: " + ", ".join(map(str, self._streaming))
        return ""

    def apply(self) -> tuple[str, ...]:
        """Return what is asked for once now."""
        done = self.tick()
        if not done:
            raise KernelFeatureMissing("no streaming cgroup has page cache that can be given up")
        return done

    def tick(self) -> tuple[str, ...]:
        """Return it up again; a cgroup that has gone, or has nothing to give, is passed over."""
        done, others = [], []
        for group in self._streaming:
            with contextlib.suppress(HyperboxError):
                if not can_reclaim_files(group):
                    others.append(group)
                elif asked := reclaim_files(group):
                    done.append(f"{group.name}: {asked >> 20} MiB of page cache reclaimed")
        return (*done, *_dropped_open_files(others))

    def lost(self) -> bool:
        """Never: there is nothing that stays."""
        return False

    def revert(self, *, calm: bool) -> tuple[str, ...]:
        """Only stop doing it: what was given up is read again when it is wanted."""
        return ("page cache is left alone again",)


class MemoryHighActuator:
    """Lowers memory.high of streaming cgroups a step below what they use, once more each time.

    Parameters
    ----------
    level
        1 for the first step, 2 for the next ...: only its name.
    share
        Of what the cgroup uses, that it may go on using without being slowed down.
    """

    title = "slow down the growth of streaming cgroups (memory.high)"

    def __init__(self, streaming: Sequence[Path], *, level: int = 1, share: float = 0.85) -> None:
        self.name = f"memory-high-{level}"
        self._streaming = tuple(streaming)
        self._share = share
        self._changes: list[KnobChange] = []

    def unavailable(self) -> str:
        """Say why none can be lowered."""
        if not self._streaming:
            return _NONE_NAMED
        if not any((group / "memory.high").exists() for group in self._streaming):
            return "no streaming cgroup with a memory.high is there"
        return ""

    def apply(self) -> tuple[str, ...]:
        """Lower each by a step, never below 16 MiB nor its memory.low."""
        done = []
        try:
            for group in self._streaming:
                with contextlib.suppress(KernelFeatureMissing):  # gone meanwhile
                    done += self._lowered(Cgroup(group))
        except BaseException:
            with contextlib.suppress(HyperboxError):
                put_back(self._changes)
            raise
        if not done:
            raise KernelFeatureMissing("no streaming cgroup uses enough to be lowered")
        return tuple(done)

    def tick(self) -> tuple[str, ...]:
        """Nothing: it stays."""
        return ()

    def lost(self) -> bool:
        """Whether every one has gone. Another value may be the next step's, on top of this."""
        return bool(self._changes) and not any(change.path.exists() for change in self._changes)

    def revert(self, *, calm: bool) -> tuple[str, ...]:
        """Return each its old memory.high."""
        return put_back(self._changes)

    def _lowered(self, group: Cgroup) -> list[str]:
        used = int(group.read("memory.current"))
        protected = group.read("memory.low")
        least = max(_LEAST_HIGH, int(protected) if protected.isdecimal() else used)
        value = int(used * self._share) // _MIB * _MIB
        if value < least:
            return []
        change = KnobChange(group.directory / "memory.high")
        self._changes.append(change)
        change.apply(value)
        return [f"{group.directory.name}: memory.high {change.original} -> {value}"]


def damon(settings: Callable[[], Sequence[tuple[str, str]]] | None = None) -> KnobActuator:
    """Page out what nobody has touched for half a minute, within a quota, while it is tried.

    The kernel's own watermarks would switch it off when little memory is free, which is
    when it is wanted here: they are opened.
    """

    def wanted() -> Sequence[tuple[Path, str]]:
        if not damon_reclaim_present():
            raise KernelFeatureMissing("this kernel was built without DAMON_RECLAIM")
        if read_knob(DAMON_RECLAIM / "enabled") == "Y":
            raise KernelFeatureMissing("DAMON reclaims already")
        if damon_stat_runs():
            raise KernelFeatureMissing("DAMON works for its statistics (damon_stat) alone")
        return [(DAMON_RECLAIM / name, value) for name, value in (settings or _usual)()]

    return KnobActuator("damon", "page out what is idle (DAMON)", wanted)


def _usual() -> Sequence[tuple[str, str]]:
    return (
        ("min_age", "30000000"),  # us
        ("quota_ms", "10"),  # of each reset interval, one second
        ("quota_sz", str(32 * _MIB)),
        ("wmarks_high", "1000"),  # thousandths of memory free: always on
        ("wmarks_mid", "1000"),
        ("wmarks_low", "0"),
        ("enabled", "Y"),
    )


def _dropped_open_files(groups: Sequence[Path]) -> list[str]:
    """Say of which cgroups open files were dropped; look a fifth of a second for all together."""
    done: list[str] = []
    waiting = list(groups)
    for look in range(_LOOKS):
        if not waiting:
            break
        if look:
            time.sleep(_BETWEEN_LOOKS_S)
        for group in waiting.copy():
            try:
                files = sum(map(drop_open_files, Cgroup(group).processes()))
            except HyperboxError:  # gone: there is nothing to wait for
                waiting.remove(group)
                continue
            if files:
                done.append(f"{group.name}: page cache of {files} open files dropped")
                waiting.remove(group)
    return done
