"""The tracer: every system call of a machine, a cgroup or a tree of processes, in windows.

`Tracer` puts together what the programs in the kernel count (`instrument`), the lives of processes
(`lives`) and the time into windows; `windows` makes spans of them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from hyperbox.errors import ConfigError
from hyperbox.linux.cgroup import cgroup_root
from hyperbox.linux.machine_clock import busy_cpu_ns
from hyperbox.linux.process_files import (
    boot_id,
    cgroup_path,
    command_line,
    descendants,
    read_process,
)
from hyperbox.observability.governor import BUDGET, Governor, WindowLoad
from hyperbox.observability.instrument import Filter, Instrument, Scope
from hyperbox.observability.layouts import CALL, SPILLED_NUMBERS, Counter, Why
from hyperbox.observability.lives import Life, Lives, Outside
from hyperbox.observability.modes import Mode
from hyperbox.observability.tallies import ABI_SHIFT, Rows, merged, process_of

__all__ = ["Tracer", "Window"]

_IO_URING = (425, 426, 427)  # io_uring_setup, io_uring_enter, io_uring_register, on every ABI
_SECOND_NS = 1_000_000_000
_CAUSES = {
    Counter.SPILLED: "table_full",
    Counter.RING_FULL: "ring_full",
    Counter.RATE_LIMITED: "rate_limit",
    Counter.SLOT_TAKEN: "slot_taken",
    Counter.LIVES_FULL: "lives_full",
    Counter.PID_UNKNOWN: "pid_unknown",
}


@dataclass(frozen=True)
class Window:
    """What was traced in a stretch of time. Times are of CLOCK_MONOTONIC, in nanoseconds."""

    start_ns: int
    end_ns: int
    mode: Mode
    tallies: Rows
    """A row for each call of each process, in the order of keys (`layouts.TALLY`)."""
    calls: Rows
    """Single calls (`layouts.CALL`)."""
    lives: Mapping[int, Sequence[Life]]
    """Of each process of the tallies and calls, the last one last."""
    ended: Sequence[Life]
    """Lives that have ended in it."""
    unattributed: Mapping[int, int]
    """Counts of calls whose tally had no place, by keys of process 0."""
    lost: Mapping[str, int]
    """By cause. ``not_run`` are calls that were not counted; ``table_full`` ones are in
    `unattributed`; all others are calls that were counted and not reported one by one, or steps of
    processes' lives."""
    cost: float
    """What tracing took of the CPU time that was busy (at least one processor's), from 0;
    our own included."""
    skipped: int
    """Calls of processes that are not traced, which pass the programs all the same."""

    @property
    def count(self) -> int:
        """Calls that were counted."""
        return int(self.tallies["count"].sum()) + sum(self.unattributed.values())

    def life(self, process: int, time_ns: int) -> Life:
        """Return whose call it was."""
        lives = self.lives[process]
        return next((life for life in reversed(lives) if life.start_ns <= time_ns), lives[0])


class Tracer:
    """Traces from entering to leaving the block; `poll` often and `read` each window.

    Parameters
    ----------
    scope
        Which processes; this one never is.
    mode
        What is looked at; by default the governor decides for each window, within `budget`.
    budget
        What tracing may take of the CPU time that the machine is busy, from 0 to 1. Calls are
        counted even beyond it.
    duty_cycle
        Whether the budget goes before coverage: windows are left out if counting exceeds it.
    arguments
        Whether the command lines of processes are read; they may hold secrets.
    perf
        Whether records come through perf buffers: None if the kernel has no ring buffer.

    Raises
    ------
    KernelFeatureMissing
        On entering, if this kernel or its rules do not allow it; with the kernel's reason.
    """

    def __init__(
        self,
        scope: Scope,
        *,
        mode: Mode | None = None,
        budget: float = BUDGET,
        duty_cycle: bool = False,
        arguments: bool = False,
        perf: bool | None = None,
    ) -> None:
        self.instrument = Instrument(scope, perf=perf)
        self._mode = mode
        self._budget = budget
        self._duty_cycle = duty_cycle
        paths = _CgroupPaths()
        outside = Outside(
            read_process, paths.of, command_line if arguments else lambda _process: ()
        )
        self.lives = Lives(outside, boot=boot_id().encode(), suspended_ns=_suspended_ns())
        self._calls: list[Rows] = []
        self._taken = self._passed_over = 0
        self._counted: Mapping[Counter, int] = dict.fromkeys(Counter, 0)
        self._missed = 0, 0
        self._spilled = np.zeros((3, SPILLED_NUMBERS), np.uint64)
        self._since_ns = self._busy_ns = self._own_ns = 0

    def __enter__(self) -> Tracer:
        self.instrument.__enter__()
        # A command may be over within a window; a machine or a service is known to be busy.
        first = Mode.FULL if self.instrument.scope.filter is Filter.TREE else Mode.HYBRID
        first = first if self._mode is None else self._mode
        self.governor = Governor(
            self.instrument.costs(), budget=self._budget, first=first, duty_cycle=self._duty_cycle
        )
        self._since_ns = time.monotonic_ns()
        self._busy_ns, self._own_ns = busy_cpu_ns(), time.process_time_ns()
        self._load = WindowLoad(0, 0, _SECOND_NS, 0)
        self.instrument.change(self.governor.mode)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.instrument.__exit__(kind, error, trace)

    @property
    def window_start_ns(self) -> int:
        """Time of CLOCK_MONOTONIC at which the window began that is under way."""
        return self._since_ns

    def add_tree(self, process: int) -> None:
        """Trace a running process and what it has started, for a scope of `Filter.TREE`.

        Raises
        ------
        ConfigError
            If there is no such process.
        """
        if read_process(process) is None:
            raise ConfigError(f"there is no process {process}")
        found: set[int] = set()
        # What is started meanwhile is traced by its parent, or found the next time round.
        while new := {process, *descendants(process)} - found:
            for one in new:
                self.instrument.add(one)
            found |= new

    def poll(self) -> None:
        """Take what has come from the kernel, before its buffers are full: every 50 ms or so."""
        if self.instrument.missed()[0] > self._missed[0]:
            self.instrument.use_events()
        calls = self.instrument.calls()
        if len(calls):
            self._calls.append(calls)
        self.lives.note(self.instrument.lives())

    def take_calls(self) -> list[tuple[Life, np.void]]:
        """Poll, and return the single calls that have come, each with whose it was.

        For readers who cannot wait for the end of the window, which then lacks them. Where the
        governor decides, a look takes half of what is left for the window at most, so that slow
        calls late in it have a place.
        """
        self.poll()
        calls = self._come()
        if self._mode is None:
            left = self.governor.most_spans(self._load.busy_ns) - self._taken
            most = max(0, (left + 1) // 2)
            self._passed_over += max(0, len(calls) - most)
            calls = _weightiest(calls, most)
        self._taken += len(calls)
        return [
            (self.lives.at(process_of(int(call["key"])), int(call["start_ns"])), call)
            for call in calls
        ]

    def read(self) -> Window:
        """End the window, begin another one, and return what was in it."""
        # The calls of what ends from now on may be in the next window.
        now_ns = time.monotonic_ns()
        window = self._window(self.instrument.flip(), now_ns)
        if self._mode is None and self.governor.step(self._load) is not self.instrument.mode:
            self.instrument.change(self.governor.mode)
        return window

    def stop(self) -> Window:
        """Trace no further, and return the last window."""
        return self._window(self.instrument.stop(), None)

    def _measured(self, calls: int, skipped: int, reported: int, elapsed_ns: int) -> WindowLoad:
        busy_ns, own_ns = busy_cpu_ns(), time.process_time_ns()
        # On an idle machine the tracer would be most of what is busy, and cost nobody anything.
        whole_ns = max(busy_ns - self._busy_ns, elapsed_ns)
        load = WindowLoad(calls, skipped, whole_ns, own_ns - self._own_ns, reported)
        self._busy_ns, self._own_ns = busy_ns, own_ns
        return load

    def _window(self, rows: Rows, ended_before_ns: int | None) -> Window:
        start_ns, self._since_ns = self._since_ns, time.monotonic_ns()
        self.poll()
        calls = self._come()
        tallies = merged(rows)
        counters = self.instrument.counters()
        grown = {which: counters[which] - self._counted[which] for which in Counter}
        self._counted = counters
        unattributed = self._unattributed()
        count = int(tallies["count"].sum()) + sum(unattributed.values())
        lost = self._lost(grown)
        elapsed_ns = self._since_ns - start_ns
        reported = self._taken + self._passed_over + len(calls)
        self._load = self._measured(count, grown[Counter.SKIPPED], reported, elapsed_ns)
        passed_over = self._passed_over
        if self._mode is None:
            most = max(0, self.governor.most_spans(self._load.busy_ns) - self._taken)
            passed_over += max(0, len(calls) - most)
            calls = _weightiest(calls, most)
        if passed_over:
            lost["span_limit"] = passed_over
        self._taken = self._passed_over = 0
        lives = self._lives_of(tallies, calls)
        return Window(
            start_ns=start_ns,
            end_ns=self._since_ns,
            mode=self.governor.mode,
            tallies=tallies,
            calls=calls,
            lives=lives,
            ended=self.lives.take_ended(ended_before_ns),
            unattributed=unattributed,
            lost=lost,
            cost=self.governor.cost(self._load),
            skipped=grown[Counter.SKIPPED],
        )

    def _come(self) -> Rows:
        calls = np.concatenate(self._calls) if self._calls else np.zeros(0, CALL)
        self._calls.clear()
        return calls

    def _lives_of(self, tallies: Rows, calls: Rows) -> Mapping[int, Sequence[Life]]:
        found: dict[int, list[Life]] = {}
        processes = tallies["key"] >> 32
        starts = np.flatnonzero(np.diff(processes, prepend=0))
        counts = np.add.reduceat(tallies["count"], starts) if len(starts) else starts
        for process, count in zip(processes[starts].tolist(), counts.tolist(), strict=True):
            life = self.lives.at(process, self._since_ns)
            life.calls += count
            found[process] = [life]
        for key in tallies["key"][np.isin(tallies["key"] & 0x3FFFFFFF, _IO_URING)].tolist():
            found[process_of(key)][0].io_uring = True
        starts_ns = zip((calls["key"] >> 32).tolist(), calls["start_ns"].tolist(), strict=True)
        for process, start_ns in starts_ns:
            life = self.lives.at(process, start_ns)
            known = found.setdefault(process, [])
            if not any(life is one for one in known):
                known.insert(0, life)
        return found

    def _unattributed(self) -> Mapping[int, int]:
        spilled = self.instrument.spilled()
        grown, self._spilled = spilled - self._spilled, spilled
        return {
            (int(abi) << ABI_SHIFT) | int(number): int(grown[abi, number])
            for abi, number in zip(*np.nonzero(grown), strict=True)
        }

    def _lost(self, grown: Mapping[Counter, int]) -> dict[str, int]:
        missed = self.instrument.missed()
        not_run = [now - before for now, before in zip(missed, self._missed, strict=True)]
        self._missed = missed
        lost = {name: grown[which] for which, name in _CAUSES.items()}
        lost["not_run"], lost["end_not_run"] = not_run
        return {name: count for name, count in lost.items() if count}


class _CgroupPaths:
    """Paths of cgroups by their number (the directory's inode in version 2), kept once known."""

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}
        self._root: Path | None = None
        with contextlib.suppress(Exception):
            self._root = cgroup_root()
        # Beside version 1 all may be in the root of version 2, and the engine's cgroup elsewhere.
        self._all = self._root == Path("/sys/fs/cgroup")

    def of(self, process: int, number: int) -> str:
        """Return the path below the root of the hierarchy."""
        if not self._all or not number:
            return cgroup_path(process)
        if number not in self._paths:
            self._paths[number] = self._search(number) or cgroup_path(process)
        return self._paths[number]

    def _search(self, number: int) -> str:
        assert self._root is not None
        for directory, _, _ in os.walk(self._root):
            with contextlib.suppress(OSError):
                if Path(directory).stat().st_ino == number:
                    return "/" + os.path.relpath(directory, self._root).lstrip(".")
        return ""


def _weightiest(calls: Rows, most: int) -> Rows:
    """Return at most so many: slow ones before failed ones before examples, longer ones first."""
    if len(calls) <= most:
        return calls
    slow, failed = calls["why"] & Why.SLOW, calls["why"] & Why.FAILED
    order = np.lexsort((-calls["duration_ns"].astype(np.int64), failed == 0, slow == 0))
    kept: Rows = calls[np.sort(order[:most])]
    return kept


def _suspended_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
