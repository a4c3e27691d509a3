"""From windows to spans: a span for a process' life, windows below it, single calls below those.

Pure but for the random identifiers of windows and calls, and what is known of the machine.
Attributes without a name in the semantic conventions are in the namespace ``hyperbox``
(`attributes`).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import platform
import random
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hyperbox.observability import attributes as names
from hyperbox.observability.ebpf import Window
from hyperbox.observability.export_target import resource_attributes
from hyperbox.observability.layouts import Why
from hyperbox.observability.lives import Life, container_of, pod_of
from hyperbox.observability.modes import Mode
from hyperbox.observability.spans import (
    Attributes,
    ResourceSpans,
    Span,
    SpanLink,
    SpanResource,
    Value,
)
from hyperbox.observability.tallies import (
    Rows,
    abi_of,
    call_name,
    process_of,
    upper_ns,
)

__all__ = ["Clock", "SpanMaker", "errno_name", "machine_attributes"]

_STEP_NS = 1_000_000_000
_MOST_ERRNO = 4095
# Of include/linux/errno.h: what a call returns that a signal interrupts, killed ones included;
# the program does not see it.
_INTERRUPTED = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    516: "ERESTART_RESTARTBLOCK",
}
_APPROXIMATE = int(Why.APPROXIMATE)
_REASONS = {int(why): str(why.name).lower() for why in Why if why is not Why.APPROXIMATE}


class Clock:
    """Turns times of CLOCK_MONOTONIC into Unix times.

    The difference is kept until the wall clock has been set: within a span both ends come from
    the same difference, so that it never ends before it starts.
    """

    def __init__(self) -> None:
        self._offset_ns = self._measured()

    def follow(self) -> None:
        """Take the wall clock's time again if it was set by a second or more."""
        offset_ns = self._measured()
        if abs(offset_ns - self._offset_ns) >= _STEP_NS:
            self._offset_ns = offset_ns

    def unix_ns(self, monotonic_ns: int) -> int:
        """Return the Unix time."""
        return max(0, monotonic_ns + self._offset_ns)

    @staticmethod
    def _measured() -> int:
        before = time.monotonic_ns()
        wall = time.time_ns()
        return wall - (before + time.monotonic_ns()) // 2


@dataclass
class SpanMaker:
    """Makes the spans of windows, one after the other.

    Parameters
    ----------
    machine
        Attributes of every resource: what host.* and os.* say.
    """

    machine: Attributes = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    _ahead: dict[int, tuple[Life, bytes]] = field(default_factory=dict)
    """Identifiers of windows under way whose calls have been made into spans already."""
    _random: random.Random = field(default_factory=lambda: random.Random(os.urandom(16)))  # noqa: S311 # no secrets

    def spans(self, window: Window) -> list[ResourceSpans]:
        """Return the spans of a window, by process: of lives that have ended, windows and calls."""
        self.clock.follow()
        spans: dict[int, list[Span]] = {}
        lives: dict[int, Life] = {}

        def put(life: Life, span: Span) -> None:
            lives[id(life)] = life
            spans.setdefault(id(life), []).append(span)

        parents: dict[int, bytes] = {}
        for life, rows in (*_by_process(window), *self._without_tally(window)):
            span = self._window_span(window, life, rows)
            parents[id(life)] = span.span_id
            put(life, span)
        self._ahead.clear()
        for record in window.calls:
            life = window.life(process_of(int(record["key"])), int(record["start_ns"]))
            put(life, self._call_span(life, record, parents.get(id(life), life.span_id)))
        for life in window.ended:
            put(life, self._life_span(life, life.end_ns))
        found = [ResourceSpans(self._resource(lives[key]), made) for key, made in spans.items()]
        return found + self._unattributed(window)

    def calls(
        self, calls: Sequence[tuple[Life, np.void]], window_start_ns: int
    ) -> list[ResourceSpans]:
        """Return the spans of single calls of the window that is under way, by process.

        A call that began in it is a child of the window's span, which comes when it ends.
        """
        spans: dict[int, tuple[Life, list[Span]]] = {}
        for life, record in calls:
            parent = life.span_id
            if int(record["start_ns"]) >= window_start_ns:
                _, parent = self._ahead.setdefault(id(life), (life, self._identifier()))
            _, made = spans.setdefault(id(life), (life, []))
            made.append(self._call_span(life, record, parent))
        return [ResourceSpans(self._resource(life), made) for life, made in spans.values()]

    def running(self, lives: Sequence[Life], now_ns: int) -> list[ResourceSpans]:
        """Return the spans of lives that go on when tracing ends: up to now, and marked."""
        return [
            ResourceSpans(self._resource(life), [self._life_span(life, now_ns)]) for life in lives
        ]

    def _resource(self, life: Life) -> SpanResource:
        found: dict[str, Value] = {
            "service.name": life.comm or f"process {life.process}",
            names.PROCESS_PID: life.process,
            "process.parent_pid": life.parent,
            "process.executable.name": life.comm,
            "process.executable.path": life.executable,
            "process.command_args": life.arguments,
            names.CONTAINER_ID: container_of(life.cgroup),
            "k8s.pod.uid": pod_of(life.cgroup),
            "process.linux.cgroup": life.cgroup,
        }
        return SpanResource(
            {**self.machine, **{key: value for key, value in found.items() if value}}
        )

    def _life_span(self, life: Life, end_ns: int) -> Span:
        found: dict[str, Value] = {
            names.SPAN_KIND: "process",
            names.PROCESS_CALLS: life.calls,
            names.PROCESS_EXECUTED: life.executed,
        }
        if life.io_uring:  # what its rings open, read and write are not system calls
            found[names.PROCESS_IO_URING] = True
        error = ""
        if not life.end_ns:
            found[names.PROCESS_RUNNING] = True
        elif life.status & 0x7F:
            found[names.PROCESS_SIGNAL] = life.status & 0x7F
            error = f"killed by signal {life.status & 0x7F}"
        else:
            found["process.exit.code"] = life.status >> 8
        links = (SpanLink(*life.parent_ids),) if life.parent_ids else ()
        return Span(
            life.trace_id,
            life.span_id,
            life.comm or f"process {life.process}",
            self.clock.unix_ns(life.start_ns),
            self.clock.unix_ns(max(end_ns, life.start_ns)),
            attributes=found,
            links=links,
            error=error,
        )

    def _window_span(self, window: Window, life: Life, rows: Rows) -> Span:
        _, identifier = self._ahead.get(id(life), (life, b""))
        start_ns = max(window.start_ns, life.start_ns)
        end_ns = min(window.end_ns, life.end_ns or window.end_ns)
        return Span(
            life.trace_id,
            identifier or self._identifier(),
            "window",
            self.clock.unix_ns(start_ns),
            self.clock.unix_ns(max(start_ns, end_ns)),
            life.span_id,
            {**_counted(rows), **_circumstances(window)},
        )

    def _call_span(self, life: Life, record: np.void, parent: bytes) -> Span:
        key, result, why = int(record["key"]), int(record["result"]), int(record["why"])
        start_ns = int(record["start_ns"])
        name = call_name(key)
        found: dict[str, Value] = {
            names.SPAN_KIND: "call",
            names.SYSCALL_NAME: name,
            names.SYSCALL_ABI: abi_of(key),
            names.THREAD_ID: int(record["thread"]),
            names.SYSCALL_RESULT: result,
            names.SYSCALL_REASON: [text for flag, text in _REASONS.items() if why & flag],
        }
        error = ""
        if why & _APPROXIMATE:
            found[names.SYSCALL_APPROXIMATE] = True
        if -_MOST_ERRNO <= result < 0:
            error = found[names.ERROR_TYPE] = errno_name(-result)
        return Span(
            life.trace_id,
            self._identifier(),
            name,
            self.clock.unix_ns(start_ns),
            self.clock.unix_ns(start_ns + int(record["duration_ns"])),
            parent,
            found,
            error=error,
        )

    def _without_tally(self, window: Window) -> Iterator[tuple[Life, Rows]]:
        """Yield lives whose calls have a window's span as parent that nothing was counted for.

        Their tallies had no place, or the start of a call was known to a tick only.
        """
        counted = {id(life) for life, _ in _by_process(window)}
        for key, (life, _) in self._ahead.items():
            if key not in counted:
                yield life, window.tallies[:0]

    def _unattributed(self, window: Window) -> list[ResourceSpans]:
        """Return a span for calls that were counted without their process, and for losses."""
        whole = not window.unattributed and not window.lost
        if whole and window.mode is not Mode.OFF:
            return []
        found: dict[str, Value] = {
            names.SPAN_KIND: "unattributed",
            **_circumstances(window),
            names.WINDOW_SYSCALLS: [call_name(key) for key in window.unattributed],
            names.WINDOW_COUNTS: list(window.unattributed.values()),
            **{f"{names.LOST}.{cause}": count for cause, count in window.lost.items()},
        }
        span = Span(
            self._random.randbytes(16),
            self._identifier(),
            "window",
            self.clock.unix_ns(window.start_ns),
            self.clock.unix_ns(window.end_ns),
            attributes=found,
        )
        return [ResourceSpans(SpanResource({**self.machine, "service.name": "hyperbox"}), [span])]

    def _identifier(self) -> bytes:
        return self._random.randbytes(8)


def machine_attributes(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what every resource says of this machine, and ``OTEL_RESOURCE_ATTRIBUTES``.

    Raises
    ------
    ConfigError
        If the variable is not a list of pairs.
    """
    found = {
        "host.name": socket.gethostname(),
        "host.arch": {"x86_64": "amd64"}.get(platform.machine(), platform.machine()),
        "os.type": "linux",
        "os.version": platform.release(),
    }
    with contextlib.suppress(OSError):
        found["host.id"] = Path("/etc/machine-id").read_text().strip()
    return found | resource_attributes(environment)


def errno_name(number: int) -> str:
    """Return the name of an error number; ``errno_NUMBER`` if it has none."""
    return errno.errorcode.get(number) or _INTERRUPTED.get(number, f"errno_{number}")


def _by_process(window: Window) -> Iterator[tuple[Life, Rows]]:
    processes = window.tallies["key"] >> 32
    starts = np.flatnonzero(np.diff(processes, prepend=0)).tolist()
    for start, end in itertools.pairwise([*starts, len(processes)]):
        yield window.lives[int(processes[start])][-1], window.tallies[start:end]


def _counted(rows: Rows) -> Mapping[str, Value]:
    """Return what a window says of each call, as arrays in the order of the names."""
    keys = rows["key"].tolist()
    found: dict[str, Value] = {
        names.SPAN_KIND: "window",
        names.WINDOW_SYSCALLS: [call_name(key) for key in keys],
        names.WINDOW_COUNTS: rows["count"].tolist(),
    }
    if rows["errors"].any():
        found[names.WINDOW_ERRORS] = rows["errors"].tolist()
    if rows["timed"].any():
        found[names.WINDOW_TIMED] = rows["timed"].tolist()
        found[names.WINDOW_SUM] = rows["sum_ns"].tolist()
        found[names.WINDOW_MAX] = rows["max_ns"].tolist()
    abis = [abi_of(key) for key in keys]
    if any(abi != "x86_64" for abi in abis):
        found[names.WINDOW_ABIS] = abis
    calls, buckets = np.nonzero(rows["buckets"])
    if len(calls):
        found[names.LATENCY_CALLS] = calls.tolist()
        found[names.LATENCY_BELOW] = [upper_ns(bucket) for bucket in buckets.tolist()]
        found[names.LATENCY_COUNTS] = rows["buckets"][calls, buckets].tolist()
    failing, places = np.nonzero(rows["failures"]["count"])
    if len(failing):
        failures = rows["failures"][failing, places]
        found[names.ERRNO_CALLS] = failing.tolist()
        found[names.ERRNO_TYPES] = [errno_name(number) for number in failures["number"].tolist()]
        found[names.ERRNO_COUNTS] = failures["count"].tolist()
    return found


def _circumstances(window: Window) -> Mapping[str, Value]:
    return {
        names.WINDOW_MODE: window.mode.name.lower(),
        names.WINDOW_COST: round(window.cost, 6),
    }
