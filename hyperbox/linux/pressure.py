"""Pressure stall information: the kernel's files, parsed, and its triggers.

Follows Documentation/accounting/psi.rst (Linux 4.20; triggers 5.2; ``full`` of cpu 5.13;
``irq`` 6.1, 52b1364ba0b1). ``total`` is brought up to date by every read, the averages every two
seconds. A file can be absent (ENOENT) or there and switched off (EOPNOTSUPP, on
reading): both are a `PressureMissing` with the reason, as far as the kernel's command line,
its configuration and the cgroup's own switch (``cgroup.pressure``, 6.1, 34f26a15611a)
tell it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hyperbox.errors import ConfigError, KernelFeatureMissing, WorkloadError
from hyperbox.linux.mounts import parse_mountinfo
from hyperbox.linux.refusal import refusal

__all__ = [
    "PROC_PRESSURE",
    "Line",
    "Missing",
    "Pressure",
    "PressureFile",
    "PressureMissing",
    "Resource",
    "StallKind",
    "Trigger",
    "cgroup_files",
    "parse_pressure",
    "system_files",
    "why_missing",
]

PROC_PRESSURE = Path("/proc/pressure")
_KINDS = ("some", "full")
_OFF = ("0", "n", "no", "off", "f", "false")  # what the kernel's kstrtobool() takes, and more
_LONGEST = 512  # bytes; two lines of at most about 100
_SWITCH = "cgroup.pressure"
_OFF_IN_CGROUP = f"switched off in this cgroup: its {_SWITCH} is 0"
_WITHOUT_RIGHT = "without CAP_SYS_RESOURCE it takes Linux 6.4, or 6.1 of the stable series"
_TRIGGER_HINTS = {
    errno.EINVAL: "stall below window, window 500 ms to 10 s; without CAP_SYS_RESOURCE a multiple "
    "of 2 s",
    errno.EPERM: _WITHOUT_RIGHT,
    errno.EACCES: _WITHOUT_RIGHT,
}


class Resource(StrEnum):
    """What tasks wait for."""

    CPU = "cpu"
    MEMORY = "memory"
    IO = "io"
    IRQ = "irq"


class StallKind(StrEnum):
    """Whether some task or all non-idle tasks waited."""

    SOME = "some"
    FULL = "full"


class Missing(StrEnum):
    """Why there is no pressure to read."""

    ABSENT = "absent"
    DISABLED = "disabled"
    HIDDEN = "hidden"
    """The kernel may have it, and this mount namespace does not show it."""


class PressureMissing(KernelFeatureMissing):
    """There is no such pressure to read; `why` says in which way."""

    def __init__(self, message: str, *, why: Missing, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.why = why


@dataclass(frozen=True)
class Line:
    """One line of a pressure file.

    The averages are percent of wall time over about 10, 60 and 300 s; `total_us` is the
    stall time since boot in microseconds.
    """

    avg10: float
    avg60: float
    avg300: float
    total_us: int


@dataclass(frozen=True)
class Pressure:
    """A pressure file; a line that this kernel does not print is None."""

    some: Line | None
    full: Line | None

    def line(self, kind: StallKind) -> Line | None:
        """Return the line of a kind."""
        return self.some if kind is StallKind.SOME else self.full


def parse_pressure(text: str) -> Pressure:
    """Parse a pressure file; lines and fields of later kernels are passed over.

    Raises
    ------
    ValueError
        If there is no known line, or one lacks a field or is not made of numbers.
    """
    found: dict[str, Line] = {}
    for row in text.splitlines():
        name, *pairs = row.split() or [""]
        if name in _KINDS:
            found[name] = _line(row, pairs)
    if not found:
        raise ValueError(f"no line of pressure in {text[:60]!r}")
    return Pressure(found.get(StallKind.SOME), found.get(StallKind.FULL))


class PressureFile:
    """A pressure file kept open: one pread(2) a reading, no path lookup.

    Raises
    ------
    PressureMissing
        If the file is absent, or pressure is switched off.
    WorkloadError
        If the file may not be opened.
    """

    def __init__(self, resource: Resource, path: Path) -> None:
        self.resource = resource
        self.path = path
        self._handle = -1
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _explained(error, path) from error

    def __enter__(self) -> PressureFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> Pressure:
        """Read and parse the file now.

        Raises
        ------
        PressureMissing
            If pressure is switched off.
        WorkloadError
            If the cgroup is gone, or the text is not what psi.rst says.
        """
        try:
            text = os.pread(self._handle, _LONGEST, 0).decode("ascii", "replace")
        except OSError as error:
            raise _explained(error, self.path) from error
        try:
            return parse_pressure(text)
        except ValueError as error:
            if not text and _hiding(self.path):  # container runtimes bind /dev/null over files
                raise _missing(self.path, there=True) from error
            raise WorkloadError(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Close the descriptor; harmless when it is closed."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def system_files(directory: Path = PROC_PRESSURE) -> tuple[PressureFile, ...]:
    """Open the machine's pressure files: cpu, memory, io, and irq where it works.

    Raises
    ------
    PressureMissing
        If cpu, memory or io pressure is absent or switched off.
    """
    return _open_all([(resource, directory / resource) for resource in Resource])


def cgroup_files(directory: Path) -> tuple[PressureFile, ...]:
    """Open the pressure files of a cgroup v2: cpu, memory, io, and irq where it works.

    Raises
    ------
    ConfigError
        If the directory is not of cgroup v2.
    PressureMissing
        If cpu, memory or io pressure is absent or switched off.
    """
    try:
        return _open_all([(resource, directory / f"{resource}.pressure") for resource in Resource])
    except PressureMissing:
        _refuse_no_cgroup(directory)
        raise


class Trigger:
    """A threshold that the kernel watches: wakes when stall exceeds it within a window.

    Parameters
    ----------
    stall_us, window_us
        At least `stall_us` microseconds of `kind` stall within `window_us`. Windows are
        500 ms to 10 s, shorter ones too on later kernels. Who lacks CAP_SYS_RESOURCE may have
        multiples of 2 s only, where the kernel looks every 2 s (Linux 6.4, d82caa273565; the
        stable series of 6.1 has it too), and before that no trigger at all. A reader of the
        same file can take such a look's turn, since reading brings the averages up to date
        without looking at triggers (`psi_show` in kernel/sched/psi.c): beside one that reads
        every millisecond none fires (seen on 6.18).

    Raises
    ------
    PressureMissing
        If the file is absent or pressure is switched off.
    WorkloadError
        If the kernel refuses the threshold or the caller.
    """

    def __init__(self, path: Path, kind: StallKind, stall_us: int, window_us: int) -> None:
        self.path = path
        self._handle = -1
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self._handle, f"{kind} {stall_us} {window_us}\0".encode())
        except OSError as error:
            self.close()
            if error.errno in _TRIGGER_HINTS:
                what = f"{path}: no trigger for {stall_us} us in {window_us} us"
                raise refusal(what, error, hints=_TRIGGER_HINTS) from error
            raise _explained(error, path) from error
        self._poll = select.poll()
        self._poll.register(self._handle, select.POLLPRI)

    def __enter__(self) -> Trigger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, to wait for POLLPRI among others."""
        return self._handle

    def wait(self, timeout_s: float) -> bool:
        """Wait until the threshold is exceeded; False after `timeout_s` seconds.

        Raises
        ------
        PressureMissing
            If pressure has been switched off in the cgroup.
        WorkloadError
            If the cgroup is gone.
        """
        events = self._poll.poll(timeout_s * 1000)
        if events and events[0][1] & select.POLLERR:
            raise _ended(self.path)
        return bool(events)

    def close(self) -> None:
        """Drop the trigger; harmless when it is dropped."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _line(row: str, pairs: Sequence[str]) -> Line:
    fields = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    try:
        avg10, avg60, avg300 = (float(fields[name]) for name in ("avg10", "avg60", "avg300"))
        return Line(avg10, avg60, avg300, int(fields["total"]))
    except KeyError as error:
        raise ValueError(f"no {error.args[0]} in {row!r}") from None


def _open_all(wanted: Sequence[tuple[Resource, Path]]) -> tuple[PressureFile, ...]:
    opened = []
    with contextlib.ExitStack() as stack:
        for resource, path in wanted:
            try:
                file = stack.enter_context(PressureFile(resource, path))
                file.read()  # a file that is switched off opens, and refuses to be read
            except PressureMissing:
                if resource is not Resource.IRQ:  # needs 6.1 and CONFIG_IRQ_TIME_ACCOUNTING
                    raise
                continue
            opened.append(file)
        stack.pop_all()
    return tuple(opened)


def why_missing(command_line: str, config: str, switch: str) -> tuple[Missing, str]:
    """Say why there is no pressure, from what the kernel shows of itself; empty if unknown.

    Parameters
    ----------
    command_line
        ``/proc/cmdline``; the last ``psi=`` counts.
    config
        The kernel's configuration; may be empty.
    switch
        What the cgroup's ``cgroup.pressure`` reads; empty where there is none.
    """
    said = [word for word in command_line.split() if word.startswith("psi=")]
    if said and said[-1].removeprefix("psi=").lower() in _OFF:
        return Missing.DISABLED, f"switched off by {said[-1]} on the kernel's command line"
    if "# CONFIG_PSI is not set" in config.splitlines():
        return Missing.ABSENT, "the kernel was built without CONFIG_PSI"
    if "CONFIG_PSI_DEFAULT_DISABLED=y" in config.splitlines() and not said:
        return Missing.DISABLED, "off unless the kernel is booted with psi=1"
    if switch == "0":
        return Missing.DISABLED, _OFF_IN_CGROUP
    return Missing.ABSENT, ""


def _refuse_no_cgroup(directory: Path) -> None:
    """Say so if a directory without pressure files is not of cgroup v2: no fault of the kernel."""
    signs = ("cgroup.controllers", *(f"{resource}.pressure" for resource in Resource))
    if any((directory / sign).exists() for sign in signs):
        return
    if (directory / "cgroup.procs").exists():
        raise ConfigError(
            f"{directory} is a cgroup of version 1, which has no pressure",
            hint="name a cgroup v2 directory",
        )
    raise ConfigError(
        f"{directory} is not a cgroup", hint="name a directory where cgroup v2 is mounted"
    )


def _explained(error: OSError, path: Path) -> KernelFeatureMissing | WorkloadError:
    if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
        return _missing(path, there=error.errno == errno.EOPNOTSUPP)
    if error.errno == errno.ENODEV:
        return _ended(path)
    return refusal(f"cannot read {path}", error)


def _ended(path: Path) -> PressureMissing | WorkloadError:
    """Say why a kept file reads no more: it ends with its cgroup, and with the cgroup's switch."""
    if _text(path.parent / _SWITCH).strip() == "0":
        return _missing(path, there=False)
    return WorkloadError(f"{path}: its cgroup is gone")


def _missing(path: Path, *, there: bool) -> PressureMissing:
    config = _text(Path("/boot", f"config-{os.uname().release}"))
    why, reason = why_missing(
        _text(Path("/proc/cmdline")), config, _text(path.parent / _SWITCH).strip()
    )
    hint = "boot a kernel with CONFIG_PSI=y and psi=1"
    if reason == _OFF_IN_CGROUP:
        hint = f"write 1 to {path.parent / _SWITCH}"
    if reason:
        return PressureMissing(f"pressure is unavailable: {reason}", why=why, hint=hint)
    hiding = _hiding(path)
    if hiding:
        return PressureMissing(
            f"pressure is hidden here: {hiding}",
            why=Missing.HIDDEN,
            hint="run it outside of this container or sandbox, or show it all of /proc",
        )
    if there:
        return PressureMissing(
            f"{path} is there but pressure is switched off", why=Missing.DISABLED, hint=hint
        )
    return PressureMissing(
        f"{path} is absent: this kernel has no such pressure", why=Missing.ABSENT, hint=hint
    )


def _hiding(path: Path) -> str:
    """Say what hides a file of /proc in this mount namespace; empty if nothing does.

    A container runtime mounts something over what it masks; ``subset=pid`` of proc_pid(5)
    (Linux 5.8) leaves processes only.
    """
    if not path.is_relative_to("/proc"):
        return ""
    for found in parse_mountinfo(_text(Path("/proc/self/mountinfo"))):
        if found.point == Path("/proc") and "subset=pid" in found.super_options:
            return "/proc is mounted with subset=pid"
        if found.point in (path, path.parent):
            return f"something is mounted over {found.point}"
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
