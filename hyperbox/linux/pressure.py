"""Pressure stall information: the files, their text, and triggers.

Follows ``Documentation/accounting/psi.rst`` and, for cgroups,
``Documentation/admin-guide/cgroup-v2.rst``. PSI exists from Linux 4.20 (triggers: 5.2,
cgroup files: 5.2, ``irq``: 6.1 with CONFIG_IRQ_TIME_ACCOUNTING). It can be absent
(no file) or disabled (``psi=0``: reads fail with EOPNOTSUPP); both are told apart.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing

__all__ = ["RESOURCES", "Pressure", "PressureFile", "Stall", "Trigger", "parse", "system_files"]

RESOURCES = ("cpu", "memory", "io", "irq")
"""Resources that the kernel may account; ``irq`` is absent on many builds."""
SYSTEM_DIRECTORY = Path("/proc/pressure")


@dataclass(frozen=True)
class Stall:
    """One line of a pressure file.

    `avg10`, `avg60` and `avg300` are the kernel's running averages in per cent; `total`
    is the time stalled since boot in microseconds.
    """

    avg10: float
    avg60: float
    avg300: float
    total: int


@dataclass(frozen=True)
class Pressure:
    """One pressure file: `some` tasks stalled, and `full`: all of them at once.

    `some` is None for ``irq``, `full` is None for the system's ``cpu`` before 5.13.
    """

    some: Stall | None
    full: Stall | None


def parse(text: str) -> Pressure:
    """Parse the text of a pressure file.

    Raises
    ------
    ValueError
        If the text is not of the documented form; the message quotes the line.
    """
    stalls: dict[str, Stall] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        fields = dict(word.split("=", 1) for word in rest.split() if "=" in word)
        try:
            stalls[kind] = Stall(
                float(fields["avg10"]),
                float(fields["avg60"]),
                float(fields["avg300"]),
                int(fields["total"]),
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"not a line of a pressure file: {line!r}") from error
    if not stalls or not stalls.keys() <= {"some", "full"}:
        raise ValueError(f"not a pressure file: {text[:80]!r}")
    return Pressure(stalls.get("some"), stalls.get("full"))


class PressureFile:
    """A pressure file kept open: a read is one pread(2) and a parse.

    Parameters
    ----------
    path
        ``/proc/pressure/<resource>`` or a cgroup's ``<resource>.pressure``.

    Raises
    ------
    KernelFeatureMissing
        If the file is absent or PSI is disabled, with the reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _missing(path, error) from error

    def read(self) -> Pressure:
        """Read and parse the file now."""
        try:
            return parse(os.pread(self._handle, 512, 0).decode())
        except OSError as error:
            raise _missing(self.path, error) from error

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._handle)


class Trigger:
    """A threshold that the kernel watches; waiting costs nothing.

    Parameters
    ----------
    path
        A pressure file.
    kind
        ``some`` or ``full``.
    stall_us, window_us
        Fire when the stall within a window exceeds `stall_us`. Windows are 500 ms to
        10 s; without CAP_SYS_RESOURCE multiples of 2 s only (from 6.5).

    Raises
    ------
    KernelFeatureMissing
        If PSI is missing or the kernel refuses the window.
    """

    def __init__(self, path: Path, kind: str, stall_us: int, window_us: int) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _missing(path, error) from error
        try:
            os.write(self._handle, f"{kind} {stall_us} {window_us}".encode() + b"\0")
        except OSError as error:
            os.close(self._handle)
            raise KernelFeatureMissing(
                f"{path} refuses a trigger of {stall_us} us in {window_us} us: {error.strerror}",
                hint="without CAP_SYS_RESOURCE the window must be a multiple of 2 s",
            ) from error
        self._poll = select.poll()
        self._poll.register(self._handle, select.POLLPRI)

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; give whether the trigger fired.

        Raises
        ------
        KernelFeatureMissing
            If the file has gone (its cgroup was removed).
        """
        for _, events in self._poll.poll(timeout * 1000):
            if events & select.POLLERR:
                raise KernelFeatureMissing(f"{self.path} has gone")
            return bool(events & select.POLLPRI)
        return False

    def close(self) -> None:
        """Remove the trigger."""
        os.close(self._handle)


@contextlib.contextmanager
def system_files(directory: Path = SYSTEM_DIRECTORY) -> Iterator[dict[str, PressureFile]]:
    """Open the pressure files that the system has, by resource.

    Raises
    ------
    KernelFeatureMissing
        If there is none, or PSI is disabled.
    """
    with contextlib.ExitStack() as stack:
        files: dict[str, PressureFile] = {}
        for resource in RESOURCES:
            if not (directory / resource).exists():
                continue
            file = PressureFile(directory / resource)
            stack.callback(file.close)
            file.read()  # psi=0 shows itself at the first read
            files[resource] = file
        if not files:
            raise KernelFeatureMissing(
                f"this kernel has no PSI: {directory} is absent or empty",
                hint="it needs Linux 4.20 or newer with CONFIG_PSI=y",
            )
        yield files


def _missing(path: Path, error: OSError) -> KernelFeatureMissing:
    if error.errno == errno.EOPNOTSUPP:
        return KernelFeatureMissing(
            f"PSI is disabled on this kernel ({path})", hint="boot with psi=1"
        )
    if error.errno in (errno.ENOENT, errno.ENODEV):
        return KernelFeatureMissing(
            f"this kernel has no {path}", hint="it needs CONFIG_PSI=y, for cgroups also cgroup v2"
        )
    return KernelFeatureMissing(f"cannot use {path}: {error.strerror}")
