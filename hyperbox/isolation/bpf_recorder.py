"""Recorder on BPF: counts a cgroup's system calls in the kernel, with or without a seccomp filter.

The program is recorder.bpf.c. It sees calls that seccomp let through; those of a container's
processes in other pid namespaces are included, since the filter is the cgroup (version 2).
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from hyperbox.errors import KernelFeatureMissing
from hyperbox.isolation.audit_recorder import denials, denied
from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.profile import Profile
from hyperbox.isolation.recording import Recording
from hyperbox.linux.audit import AuditListener
from hyperbox.linux.bpf import BpfMap, BpfObject, RingBuffer, member_offset
from hyperbox.linux.syscalls import Abi, name_of

__all__ = ["BpfRecorder", "recording_of"]

_ZERO = struct.pack("<I", 0)
_CALL = struct.Struct("<IBBH")  # struct call of recorder.bpf.c
_COUNT = struct.Struct("<Q")
_PATH = 256
_FILTER_MODE = 2  # SECCOMP_MODE_FILTER
_UNKNOWN = 0xFF
_LOST_CALLS, _LOST_PROGRAMS = 0, 1


class BpfRecorder:
    """Records from entering to leaving the block; then `recording` has what was seen.

    Parameters
    ----------
    cgroup
        A directory of cgroup v2; the tasks below it are recorded.
    profile
        What the container runs under; BPF sees its calls whatever it is.
    listener
        Of denied calls, which do not reach the tracepoint; in its block already.

    Raises
    ------
    KernelFeatureMissing
        On entering, if this kernel or its rules do not allow it.
    HyperboxError
        On entering, if libbpf or the compiled program is missing.
    """

    name = "bpf"
    OBJECT = Path(__file__).with_name("recorder.bpf.o")

    def __init__(
        self,
        cgroup: Path,
        profile: Profile | None = None,
        listener: AuditListener | None = None,
    ) -> None:
        self.cgroup = cgroup
        self.profile = profile or default_profile()
        self._listener = listener
        self.programs: set[str] = set()
        self._object: BpfObject | None = None
        self._ring: RingBuffer | None = None

    def __enter__(self) -> BpfRecorder:
        self._object = loaded = BpfObject(self.OBJECT)
        try:
            self._configure(loaded)
            self._ring = RingBuffer(loaded.map("programs_map"), self._program)
            loaded.attach("record_call", "record_program")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ring is not None:
            self._ring.close()
        if self._object is not None:
            self._object.close()
        self._ring = self._object = None

    def counts(self) -> Mapping[tuple[int, int, int], int]:
        """Return how often each call ran: by number, compat (255 if unknown) and seccomp mode."""
        return {
            _CALL.unpack(key)[:3]: _COUNT.unpack(value)[0] for key, value in self._map("calls_map")
        }

    def recording(self, ended: str) -> Recording:
        """Stop recording and return what was seen.

        Raises
        ------
        KernelFeatureMissing
            If this kernel does not show under which filter a call ran (it has no BTF).
        """
        assert self._object is not None
        assert self._ring is not None
        self._object.detach()
        self._ring.drain()
        lost = sum(_COUNT.unpack(value)[0] for _, value in self._map("lost_map"))
        found = recording_of(self.counts(), self.programs, lost, ended)
        if self._listener is None:
            return found
        lost += self._listener.finish()
        return replace(found, denied=denied(self._listener), lost=lost)

    def denials(self) -> Mapping[str, frozenset[str]]:
        """Return the programs that tried each denied call, by its name, if there is a listener."""
        return {} if self._listener is None else denials(self._listener)

    def _configure(self, loaded: BpfObject) -> None:
        offsets = (
            member_offset("task_struct", "thread_info", "status"),
            member_offset("task_struct", "seccomp", "mode"),
            member_offset("linux_binprm", "filename"),
            member_offset("linux_binprm", "interp"),
        )
        loaded.map("settings_map")[_ZERO] = struct.pack("<4I", *(one or 0 for one in offsets))
        descriptor = os.open(self.cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            loaded.map("cgroup_map")[_ZERO] = struct.pack("<I", descriptor)
        finally:
            os.close(descriptor)

    def _map(self, name: str) -> list[tuple[bytes, bytes]]:
        assert self._object is not None
        found: BpfMap = self._object.map(name)
        return list(found.items())

    def _program(self, record: bytes) -> None:
        for start in (0, _PATH):
            path = record[start : start + _PATH].split(b"\0", 1)[0]
            if path:
                self.programs.add(path.decode(errors="backslashreplace"))


def recording_of(
    counts: Mapping[tuple[int, int, int], int], programs: set[str], lost: int, ended: str
) -> Recording:
    """Return the recording that counted calls amount to. Pure but for the kernel's release.

    Every counted call comes out: under the filter, or as the runtime's own start.

    Raises
    ------
    KernelFeatureMissing
        If the ABI or the seccomp mode of a call is not known.
    """
    calls: dict[Abi, set[str]] = {}
    start: set[str] = set()
    for number, compat, mode in counts:
        if _UNKNOWN in (compat, mode):
            raise KernelFeatureMissing(
                "this kernel has no BTF, so that calls under a filter cannot be recognised",
                hint="a kernel with CONFIG_DEBUG_INFO_BTF, or another recorder",
            )
        abi = Abi.I386 if compat else Abi.X86_64
        name = name_of(number, abi)
        if mode == _FILTER_MODE:
            calls.setdefault(abi, set()).add(name)
        else:
            start.add(name)
    return Recording(
        calls={abi: frozenset(names) for abi, names in sorted(calls.items())},
        start_calls=frozenset(start),
        programs=frozenset(programs),
        lost=lost,
        ended=ended,
        back_end=BpfRecorder.name,
        environment={"kernel": platform.release()},
    )
