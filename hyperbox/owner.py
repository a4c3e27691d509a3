"""Which process: told from a later one of the same number, and from one of another boot."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Owner", "this_process"]


@dataclass(frozen=True)
class Owner:
    """A process that no later one can be taken for.

    `start` is in clock ticks since the boot (proc_pid_stat(5)), `namespace` is the inode of
    its pid namespace, `boot` the kernel's boot id.
    """

    pid: int
    start: int
    namespace: int
    boot: str

    def lives(self) -> bool:
        """Whether the process runs; one of another pid namespace may, so it does."""
        if not self.booted_now():
            return False
        here = this_process()
        return self.namespace != here.namespace or _start_of(self.pid) == self.start

    def booted_now(self) -> bool:
        """Whether it ran since this boot; no change of a machine outlives one."""
        return self.boot == this_process().boot


def this_process() -> Owner:
    """Give the process that runs this, a forked child its own."""
    return _process(os.getpid())


@functools.cache
def _process(pid: int) -> Owner:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Owner(pid, _start_of(pid) or 0, Path("/proc/self/ns/pid").stat().st_ino, boot)


def _start_of(pid: int) -> int | None:
    """Give when a process started, in clock ticks since the boot; None if it has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        ended = words[0] in ("Z", "X") and len([*Path(f"/proc/{pid}/task").iterdir()]) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if ended else int(words[19])
