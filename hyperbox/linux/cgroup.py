"""Control groups, version 2 only; follows ``Documentation/admin-guide/cgroup-v2.rst``."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing

__all__ = ["Cgroup", "mount_point", "temporary"]

_REMOVAL_PATIENCE = 2.0  # seconds: a cgroup stays busy until its last task is reaped


class Cgroup:
    """One control group, given by its directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self, name: str, value: str) -> None:
        """Write an interface file such as ``memory.max``."""
        try:
            (self.path / name).write_text(value)
        except OSError as error:
            raise KernelFeatureMissing(
                f"cannot set {name} of {self.path} to {value}: {error.strerror}"
            ) from error

    def get(self, name: str) -> str:
        """Read an interface file."""
        try:
            return (self.path / name).read_text()
        except FileNotFoundError as error:
            raise KernelFeatureMissing(f"{self.path} has no {name}") from error

    def statistics(self, name: str = "memory.stat") -> dict[str, int]:
        """Give a flat-keyed file such as ``memory.stat`` as numbers by name."""
        pairs = (line.split() for line in self.get(name).splitlines())
        return {key: int(value) for key, value in pairs}

    def join(self, pid: int) -> None:
        """Move a process here; 0 is the caller."""
        self.set("cgroup.procs", str(pid))


def mount_point(mountinfo: str) -> Path:
    """Give where cgroup v2 is mounted, from the text of ``/proc/self/mountinfo``.

    Raises
    ------
    KernelFeatureMissing
        If it is not mounted.
    """
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == "cgroup2":
            return Path(before.split()[4].encode().decode("unicode_escape"))
    raise KernelFeatureMissing(
        "cgroup v2 is not mounted", hint="mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    )


@contextlib.contextmanager
def temporary(name: str, controllers: tuple[str, ...] = ("memory",)) -> Iterator[Cgroup]:
    """Make a top-level cgroup with these controllers; move its tasks out and remove it after.

    Raises
    ------
    KernelFeatureMissing
        If cgroup v2 or a controller is not available.
    """
    root = Cgroup(mount_point(Path("/proc/self/mountinfo").read_text()))
    available = root.get("cgroup.controllers").split()
    for controller in controllers:
        if controller not in available:
            raise KernelFeatureMissing(
                f"cgroup v2 has no {controller} controller here (cgroup v1 may hold it)"
            )
    enabled = root.get("cgroup.subtree_control").split()
    added = [controller for controller in controllers if controller not in enabled]
    for controller in added:
        root.set("cgroup.subtree_control", f"+{controller}")
    group = Cgroup(root.path / name)
    try:
        group.path.mkdir()
        yield group
    finally:
        if group.path.exists():
            _remove(group, root)
        for controller in added:
            with contextlib.suppress(KernelFeatureMissing):  # somebody else uses it now
                root.set("cgroup.subtree_control", f"-{controller}")


def _remove(group: Cgroup, root: Cgroup) -> None:
    deadline = time.monotonic() + _REMOVAL_PATIENCE
    while True:
        for pid in group.get("cgroup.procs").split():
            with contextlib.suppress(KernelFeatureMissing):  # it has just ended
                root.join(int(pid))
        try:
            os.rmdir(group.path)  # noqa: PTH106 - a cgroup directory is never "empty"
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
