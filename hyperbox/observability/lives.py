"""Lives of processes, from fork to exit, put together from what the kernel reported.

A process that was there before, or whose report was lost, is found in /proc when its calls show
up. Numbers are used again: a life has its own, by the start, and calls belong to the life that
their time falls into.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from hyperbox.linux.process_files import TICKS, ProcessFacts
from hyperbox.observability.layouts import LIFE, Stage

__all__ = ["Life", "Lives", "container_of", "pod_of"]

_RECORD = struct.Struct("<QQQIIIi16s")
assert _RECORD.size == LIFE.itemsize
_CONTAINER = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_POD = re.compile(r"pod([0-9a-f]{8}[-_](?:[0-9a-f]{4}[-_]){3}[0-9a-f]{12})")
_SECOND = 1_000_000_000


@dataclass(slots=True)
class Life:
    """A process from its start to its end. Times are of CLOCK_MONOTONIC, in nanoseconds."""

    process: int
    start_ns: int
    start_ticks: int
    parent: int = 0
    comm: str = ""
    executable: str = ""
    arguments: tuple[str, ...] = ()
    cgroup: str = ""
    end_ns: int = 0
    """0 while it runs."""
    status: int = 0
    """As wait(2) has it: exit code << 8, or a signal."""
    executed: int = 0
    io_uring: bool = False
    calls: int = 0
    trace_id: bytes = b""
    span_id: bytes = b""
    parent_ids: tuple[bytes, bytes] | None = None

    def identify(self, boot: bytes) -> None:
        """Set the ids of its trace and span: the same for the same life, whoever traces it."""
        data = struct.pack("<IQ", self.process, self.start_ticks)
        digest = blake2b(data, key=boot, digest_size=24).digest()
        self.trace_id, self.span_id = digest[:16], digest[16:]


@dataclass(frozen=True)
class Outside:
    """What the table asks the machine for."""

    read: Callable[[int], ProcessFacts | None]
    cgroup: Callable[[int, int], str]
    """Of a process and the number of its cgroup, 0 if unknown."""
    arguments: Callable[[int], tuple[str, ...]]


class Lives:
    """The table of processes.

    Parameters
    ----------
    outside
        Where facts come from that the kernel did not report.
    boot
        What tells this boot of this machine from others, for the ids.
    suspended_ns
        What CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC.
    """

    def __init__(self, outside: Outside, *, boot: bytes, suspended_ns: int = 0) -> None:
        self._outside = outside
        self._boot = boot[:64]
        self._suspended_ns = suspended_ns
        self._running: dict[int, Life] = {}
        self._ended: dict[int, list[Life]] = {}
        self._handlers = {
            Stage.FORKED: self._forked,
            Stage.EXECUTED: self._executed,
            Stage.RENAMED: self._renamed,
            Stage.EXITED: self._exited,
        }

    def note(self, records: Sequence[bytes]) -> None:
        """Take in what happened, in the order of time."""
        for record in records:
            moment, start, cgroup, kind, process, other, code, comm = _RECORD.unpack_from(record)
            name = comm.split(b"\0", 1)[0].decode(errors="replace")
            event = _Event(moment, start, cgroup, process, other, code, name, record)
            self._handlers[Stage(kind)](event)

    def at(self, process: int, time_ns: int) -> Life:
        """Return the life of a process number at a time; of a window, take its end.

        What ended before is found until it is taken.
        """
        life = self._running.get(process)
        if life is not None and life.start_ns <= time_ns:
            return life
        for ended in reversed(self._ended.get(process, ())):
            if ended.start_ns <= time_ns:
                return ended
        return life or self._found(process, time_ns)

    def running(self) -> Iterator[Life]:
        """Yield every life that has not ended."""
        yield from self._running.values()

    def take_ended(self, before_ns: int | None = None) -> list[Life]:
        """Return the lives that have ended, before a time if one is given, and forget them."""
        ended = [
            life
            for lives in self._ended.values()
            for life in lives
            if before_ns is None or life.end_ns < before_ns
        ]
        for life in ended:
            self._ended[life.process].remove(life)
            if not self._ended[life.process]:
                del self._ended[life.process]
        return ended

    def _forked(self, event: _Event) -> None:
        parent = self._running.get(event.other) or self._found(event.other, event.time_ns)
        life = Life(
            event.process,
            start_ns=min(event.start_ns - self._suspended_ns, event.time_ns),
            start_ticks=event.start_ns * TICKS // _SECOND,
            parent=event.other,
            comm=event.comm,
            executable=parent.executable,
            arguments=parent.arguments,
            cgroup=self._outside.cgroup(event.process, event.cgroup),
            parent_ids=(parent.trace_id, parent.span_id),
        )
        self._begin(life)

    def _executed(self, event: _Event) -> None:
        life = self._running.get(event.process) or self._found(event.process, event.time_ns)
        life.executed += 1
        life.comm = event.comm
        path = event.record[_RECORD.size :].split(b"\0", 1)[0].decode(errors="replace")
        if not path.startswith("/"):
            facts = self._outside.read(event.process)
            path = facts.executable if facts is not None and facts.executable else path
        life.executable = path
        life.arguments = self._outside.arguments(event.process)

    def _renamed(self, event: _Event) -> None:
        if (life := self._running.get(event.process)) is not None:
            life.comm = event.comm

    def _exited(self, event: _Event) -> None:
        life = self._running.get(event.process)
        if life is None:
            if any(one.end_ns for one in self._ended.get(event.process, ())):
                return  # two threads that end at once may both be the last
            life = self._found(event.process, event.time_ns)
            life.comm = event.comm
        life.end_ns, life.status = event.time_ns, event.code
        self._end(life)

    def _found(self, process: int, time_ns: int) -> Life:
        """Return a life that was not reported from /proc, or what is left to say."""
        facts = self._outside.read(process)
        if facts is None:  # it has ended too
            life = Life(process, time_ns, time_ns * TICKS // _SECOND, end_ns=time_ns)
            life.identify(self._boot)
            self._end(life)
            return life
        start_ns = facts.start_ticks * _SECOND // TICKS - self._suspended_ns
        life = Life(
            process,
            start_ns=min(start_ns, time_ns),
            start_ticks=facts.start_ticks,
            parent=facts.parent,
            comm=facts.comm,
            executable=facts.executable,
            arguments=self._outside.arguments(process),
            cgroup=self._outside.cgroup(process, 0),
        )
        self._begin(life)
        return life

    def _begin(self, life: Life) -> None:
        before = self._running.pop(life.process, None)
        if before is not None:  # its end was lost
            before.end_ns = life.start_ns
            self._end(before)
        life.identify(self._boot)
        self._running[life.process] = life

    def _end(self, life: Life) -> None:
        self._running.pop(life.process, None)
        self._ended.setdefault(life.process, []).append(life)


@dataclass(frozen=True, slots=True)
class _Event:
    time_ns: int
    start_ns: int
    cgroup: int
    process: int
    other: int
    code: int
    comm: str
    record: bytes


def container_of(cgroup: str) -> str:
    """Return the identifier of the container that a cgroup is of; empty if it is none.

    Docker, containerd, CRI-O and Podman name cgroups by the 64 hexadecimal digits, bare or as in
    ``docker-ID.scope``.
    """
    found = _CONTAINER.findall(cgroup)
    return str(found[-1]) if found else ""


def pod_of(cgroup: str) -> str:
    """Return the uid of the Kubernetes pod that a cgroup is of; empty if it is none.

    systemd's slices have ``_`` for ``-`` in it.
    """
    found = _POD.search(cgroup)
    return found[1].replace("_", "-") if found else ""
