"""The tracer's programs in the kernel (tracer.bpf.c): load, filter, change mode, read.

Effects only: what is read comes back as it lies there, and is put in order elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperbox.errors import HyperboxError, KernelFeatureMissing
from hyperbox.linux.bpf import BpfObject, PerfBuffer, RingBuffer, member_offset
from hyperbox.observability.call_records import PerfCalls, RingCalls
from hyperbox.observability.layouts import COUNTERS, FLIGHT, SPILLED_NUMBERS, TALLY, Counter
from hyperbox.observability.modes import Costs, Mode
from hyperbox.observability.tallies import Rows, grown

__all__ = ["Filter", "Instrument", "Scope"]

_TABLES = 8 << 20  # bytes for both tables of all processors
_MOST_SLOTS, _FEWEST_SLOTS = 8192, 256
_PAGE = 4096  # of members_map
_PERF_PAGES = 64  # of each processor's buffer of lives
_SLOW_NS = 10_000_000
_SAMPLED = 16  # one in so many calls is timed, after the first 15 of a window
_TICK_CLOCK = 6  # CLOCK_MONOTONIC_COARSE: its resolution is the kernel's tick
_ROUNDS, _CALLS = 8, 1000  # of what calibrates
_HOST_PIDS = 0xEFFFFFFC  # PROC_PID_INIT_INO of include/linux/proc_ns.h
_LIVES = ("forked", "executed", "renamed", "exited")
_OFFSETS: tuple[tuple[str, ...], ...] = (
    ("task_struct", "thread_info", "status"),
    ("task_struct", "pid"),
    ("task_struct", "tgid"),
    ("task_struct", "start_boottime"),
    ("task_struct", "exit_code"),
    ("task_struct", "signal"),
    ("signal_struct", "live"),
    ("signal_struct", "group_exit_code"),
    ("linux_binprm", "filename"),
)
_CONTROL: tuple[str, ...] = (
    "active",
    "slots",
    "processors",
    "filter",
    "tracer",
    "starting",
    "timing",
    "sample_mask",
    "every",
    "slow_ticks",
    "tick_ns",
    "events",
)


@dataclass(frozen=True)
class _Way:
    """Programs that see the same in another way."""

    enter: str
    perf: bool = False
    events: bool = False
    """Whether it may change to perf's tracepoints."""


_WAYS = (
    _Way("enter_typed", events=True),
    _Way("enter_raw"),
    _Way("enter_typed", perf=True),
    _Way("enter_raw", perf=True),
)


class Filter(IntEnum):
    """Which processes are traced."""

    ALL = 0
    TREE = 1
    CGROUP = 2


@dataclass(frozen=True)
class Scope:
    """What is traced: everything, a process with what it starts, or a cgroup (version 2)."""

    filter: Filter = Filter.ALL
    cgroup: Path | None = None


class Instrument:
    """The programs, loaded from entering to leaving the block; `change` attaches them to calls.

    Parameters
    ----------
    perf
        Whether records come through perf buffers; by default only where the kernel has no
        ring buffer (before 5.8).

    Raises
    ------
    KernelFeatureMissing
        On entering, if this kernel or its rules do not allow it; with the reason.
    """

    OBJECT = Path(__file__).with_name("tracer.bpf.o")

    def __init__(self, scope: Scope, *, perf: bool | None = None) -> None:
        self.scope = scope
        self.mode = Mode.OFF
        self._perf = perf
        self._missed_raw = 0, 0
        self._enter = self._leave = ""
        self._may_change = False
        self._kept: Rows = np.zeros(0, TALLY)
        self._lives: list[bytes] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Instrument:
        _need_host_pids()
        offsets = _offsets()
        with contextlib.ExitStack() as stack:
            self._object = stack.enter_context(self._loaded())
            self._open_maps()
            self._configure(offsets)
            self._open_buffers(stack)
            self._object.attach(*(self._named(name) for name in _LIVES))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def uses_perf(self) -> bool:
        """Whether records come through perf buffers."""
        return self._suffix == "perf"

    @property
    def uses_events(self) -> bool:
        """Whether calls are seen at perf's tracepoints."""
        return self._enter == "enter_event"

    def use_events(self) -> bool:
        """Change to perf's tracepoints, if these programs can; return whether they are used.

        Raw ones cost less, but on 7.3 a program may be preempted there, and the kernel does not
        run it for other tasks of that processor until it goes on. No call is counted twice or
        lost by the change. It needs tracefs at its usual place.
        """
        if not self._may_change or self.mode is Mode.OFF:
            return self.uses_events
        self._may_change = False
        before = (self._enter, self._leave)
        try:
            self._object.attach("enter_event")
            if self.mode <= Mode.HYBRID:
                self._object.attach("leave_event")
        except HyperboxError:
            self._object.detach("enter_event")
            return False
        self._set("events", 1)
        self._missed_raw = self.missed()
        self._object.detach(*before)
        self._enter, self._leave = "enter_event", "leave_event"
        return True

    def change(self, mode: Mode) -> None:
        """Switch to a mode; calls in flight at that moment are counted, but not timed."""
        leave = self._leave
        if mode >= Mode.COUNT:
            self._object.detach(leave)
            self._set("timing", 0)
        if mode is Mode.OFF:
            self._object.detach(self._enter)
        if mode <= Mode.HYBRID:
            self._set("sample_mask", 0 if mode is Mode.FULL else _SAMPLED - 1)
            self._set("every", int(mode is Mode.FULL))
            if self.mode >= Mode.COUNT:
                self._flights[:] = 0  # what entered before must not end as another call
                self._set("timing", 1)
                self._object.attach(leave)
        if mode is not Mode.OFF and self.mode is Mode.OFF:
            self._object.attach(self._enter)
        self.mode = mode

    def costs(self) -> Costs:
        """Measure what a call costs here in each mode, with calls of this process; about 50 ms.

        Nothing is traced meanwhile, and what was measured is thrown away.
        """
        traced = {Mode.OFF: _call_ns()}
        before = self._get("filter"), self._get("tracer")
        self._set("filter", Filter.TREE)
        self.change(Mode.COUNT)
        skipped = _call_ns()
        self._set("tracer", 0)
        self.add(os.getpid())
        for mode in (Mode.COUNT, Mode.HYBRID, Mode.FULL):
            self.change(mode)
            traced[mode] = _call_ns()
        self.change(Mode.OFF)
        self._members[os.getpid()] = 0
        self._set("filter", before[0])
        self._set("tracer", before[1])
        self.flip()
        self.flip()
        self._calls.take()
        self._counters[:] = 0
        idle = traced.pop(Mode.OFF)
        return Costs(
            {mode: max(0.0, cost - idle) for mode, cost in traced.items()},
            max(0.0, skipped - idle),
        )

    def add(self, process: int) -> None:
        """Trace a process that runs, and what it starts from now on."""
        self._members[process] = 1

    def await_execve(self, process: int) -> None:
        """Trace a process from its next execve on, that call included."""
        self._set("starting", process)

    def flip(self) -> Rows:
        """Return the tallies since the last flip, several rows for a key; and begin a new window.

        A program that was in the midst of a call when the tables changed may write to the old
        one later: that comes with the next flip.
        """
        old = self._get("active")
        new = 1 - old
        late = grown(self._kept, self._rows(new))
        self._tables[new][:] = 0
        self._set("active", new)
        self._kept = self._rows(old)
        return np.concatenate((late, self._kept))

    def calls(self) -> Rows:
        """Return the single calls that were reported since the last time."""
        return self._calls.take()

    def lives(self) -> list[bytes]:
        """Return what happened to processes since the last time, in the order of time."""
        self._life_buffer.drain()
        found = sorted(self._lives, key=lambda record: int.from_bytes(record[:8], "little"))
        self._lives.clear()
        return found

    def counters(self) -> Mapping[Counter, int]:
        """Return what the programs have counted since the start, over all processors."""
        sums = self._counters.sum(axis=0)
        return {which: int(sums[which]) for which in Counter}

    def missed(self) -> tuple[int, int]:
        """Return how often a program was not run where calls enter, and where they leave.

        That is so when a task is preempted in the midst of it, and another one comes by.
        """
        enter, leave = self._missed_raw
        return enter + self._object.missed(self._enter), leave + self._object.missed(self._leave)

    def spilled(self) -> NDArray[np.uint64]:
        """Return counts since the start of calls without a tally: by ABI, by number."""
        return self._spilled.copy()

    def stop(self) -> Rows:
        """Detach everything and return the last tallies; maps and buffers stay readable."""
        self._object.detach()
        self.mode = Mode.OFF
        time.sleep(0.005)  # programs that run now take microseconds
        return np.concatenate((self.flip(), self.flip()))

    def _loaded(self) -> BpfObject:
        """Load the best that this kernel takes; if it takes none, say why not the best."""
        refused: KernelFeatureMissing | None = None
        for way in _WAYS:
            if self._perf not in (None, way.perf):
                continue
            try:
                return self._load(way)
            except KernelFeatureMissing as error:
                refused = refused or error
        assert refused is not None
        raise refused

    def _load(self, way: _Way) -> BpfObject:
        self._suffix, unused = ("perf", "ring") if way.perf else ("ring", "perf")
        self._enter, self._leave = way.enter, self._named("leave")
        self._may_change = way.events
        processors = _possible_processors()
        most = _TABLES // (2 * processors * TALLY.itemsize)
        self._slots = max(_FEWEST_SLOTS, min(_MOST_SLOTS, 1 << most.bit_length() - 1))
        sizes = {
            "tallies_map": 2 * processors * self._slots,
            "counters_map": processors,
            "members_map": _most_processes() // _PAGE + 1,
        }
        without = {f"{name}_{unused}" for name in (*_LIVES, "calls", "lives")}
        without |= {"enter_typed", "enter_raw", "leave_ring", "leave_perf"}
        without -= {self._enter, self._leave}
        without |= set() if way.events else {"enter_event", "leave_event"}
        self._processors = processors
        return BpfObject(self.OBJECT, sizes=sizes, without=sorted(without))

    def _open_maps(self) -> None:
        def array(name: str, kind: str | np.dtype[np.void]) -> NDArray[Any]:
            described = self._object.map(name)
            count = described.entries * described.value_size // np.dtype(kind).itemsize
            return np.frombuffer(described.mapped(), kind, count)

        self._control = array("control_map", "<u4")
        self._tables = array("tallies_map", TALLY).reshape(2, -1)
        self._flights = array("flights_map", FLIGHT)
        self._members = array("members_map", "u1")
        self._counters = array("counters_map", "<u8").reshape(-1, COUNTERS)
        self._spilled = array("spilled_map", "<u8").reshape(-1, SPILLED_NUMBERS)

    def _configure(self, offsets: tuple[int, ...]) -> None:
        tick_ns = round(time.clock_getres(_TICK_CLOCK) * 1e9)
        slow_ticks = max(2, -(-_SLOW_NS // tick_ns))
        values = {
            "slots": self._slots,
            "processors": self._processors,
            "filter": self.scope.filter,
            "tracer": os.getpid(),
            "slow_ticks": slow_ticks,
            "tick_ns": tick_ns,
        }
        for name, value in values.items():
            self._set(name, value)
        self._control[len(_CONTROL) : len(_CONTROL) + len(offsets)] = offsets
        if self.scope.cgroup is not None:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            descriptor = os.open(self.scope.cgroup, flags)
            try:
                self._object.map("cgroup_map")[bytes(4)] = struct.pack("<I", descriptor)
            finally:
                os.close(descriptor)

    def _open_buffers(self, stack: contextlib.ExitStack) -> None:
        calls = self._object.map(f"calls_{self._suffix}")
        lives = self._object.map(f"lives_{self._suffix}")
        self._calls: PerfCalls | RingCalls
        self._life_buffer: PerfBuffer | RingBuffer
        if self.uses_perf:
            self._calls = PerfCalls(calls)
            self._life_buffer = PerfBuffer(lives, self._lives.append, _PERF_PAGES)
        else:
            self._calls = RingCalls(calls)
            self._life_buffer = RingBuffer(lives, self._lives.append)
        stack.callback(self._calls.close)
        stack.callback(self._life_buffer.close)

    def _named(self, program: str) -> str:
        return f"{program}_{self._suffix}"

    def _rows(self, table: int) -> Rows:
        whole = self._tables[table]
        used: Rows = whole[np.flatnonzero(whole["key"])]
        return used

    def _get(self, name: str) -> int:
        return int(self._control[_CONTROL.index(name)])

    def _set(self, name: str, value: int) -> None:
        self._control[_CONTROL.index(name)] = value


def _offsets() -> tuple[int, ...]:
    """Return where the programs find what they read in the running kernel."""
    found = tuple(member_offset(*path) for path in _OFFSETS)
    for path, offset in zip(_OFFSETS, found, strict=True):
        if offset is None:
            raise KernelFeatureMissing(
                f"this kernel's BTF does not have {'.'.join(path)}",
                hint="a kernel with CONFIG_DEBUG_INFO_BTF, 5.5 or later",
            )
    return tuple(offset or 0 for offset in found)


def _need_host_pids() -> None:
    """Process numbers of the programs are those of the first pid namespace."""
    if Path("/proc/self/ns/pid").stat().st_ino != _HOST_PIDS:
        raise KernelFeatureMissing(
            "this process is in a pid namespace of its own, where numbers differ from the kernel's",
            hint="run it outside of the container, or with --pid=host",
        )


def _possible_processors() -> int:
    """Return how many processors may ever be there: the highest number and one."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().replace(",", "-").split("-")[-1]) + 1


def _most_processes() -> int:
    return int(Path("/proc/sys/kernel/pid_max").read_text())


def _call_ns() -> float:
    """Return what a call that does nothing takes: the least of some rounds."""
    call = os.getppid
    least = float("inf")
    for _ in range(_ROUNDS):
        before = time.perf_counter_ns()
        for _call in range(_CALLS):
            call()
        least = min(least, (time.perf_counter_ns() - before) / _CALLS)
    return least
