"""What /proc says of a process: number, parent, start, program, control group.

Follows proc(5): Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "TICKS",
    "ProcessFacts",
    "boot_id",
    "cgroup_path",
    "command_line",
    "descendants",
    "read_process",
]

TICKS = os.sysconf("SC_CLK_TCK")
"""In a second, of the times in /proc."""


@dataclass(frozen=True)
class ProcessFacts:
    """A process that runs; `start_ticks` is since boot, suspend included, in `TICKS`."""

    parent: int
    start_ticks: int
    comm: str
    executable: str


def read_process(process: int) -> ProcessFacts | None:
    """Return what there is; None if the process has ended."""
    place = Path(f"/proc/{process}")
    try:
        head, _, tail = (place / "stat").read_bytes().rpartition(b")")
        fields = tail.split()
        comm = head.partition(b"(")[2].decode(errors="replace")
        return ProcessFacts(int(fields[1]), int(fields[19]), comm, executable(process))
    except (OSError, IndexError):
        return None


def executable(process: int) -> str:
    """Return the path of the program that runs; empty for the kernel's own threads."""
    with contextlib.suppress(OSError):
        return os.fspath(Path(f"/proc/{process}/exe").readlink())
    return ""


def command_line(process: int) -> tuple[str, ...]:
    """Return its arguments, the program's name among them; empty if it has ended."""
    with contextlib.suppress(OSError):
        data = Path(f"/proc/{process}/cmdline").read_bytes()
        return tuple(word.decode(errors="replace") for word in data.rstrip(b"\0").split(b"\0"))
    return ()


def cgroup_path(process: int) -> str:
    """Return its path in the hierarchy that says most: the longest; empty if it has ended.

    Container engines on version 1 leave the path of version 2 empty.
    """
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/cgroup").read_text(errors="replace").splitlines()
        return max((line.split(":", 2)[2] for line in lines), key=len, default="")
    return ""


def descendants(process: int) -> Iterator[int]:
    """Yield the processes below one, by the children of each of its threads."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield int(child)
                yield from descendants(int(child))


def boot_id() -> str:
    """Return the identifier of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
