"""The squeeze: more memory in use than a cgroup may hold, with swap of constant latency.

Everything made here is undone when the block ends: cgroup, swap areas, devices, settings.
Kernel modules stay loaded (see hyperbox.linux.modules).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperbox.errors import WorkloadError
from hyperbox.linux.cgroup import Cgroup, cgroup
from hyperbox.linux.null_blk import null_block_device
from hyperbox.linux.swap import swap_areas, swapping
from hyperbox.processes import spawn, stop

__all__ = ["MEBIBYTE", "Squeeze", "SteppedWorkload", "squeeze", "walker"]

MEBIBYTE = 1 << 20
_PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Squeeze:
    """A limited cgroup and the disk that takes what does not fit."""

    group: Cgroup
    disk: Path


class SteppedWorkload:
    """A workload in a cgroup, taken through its steps by the caller."""

    def __init__(self, process: subprocess.Popen[bytes], name: str = "memory_walk") -> None:
        self._process = process
        self._name = name

    @property
    def pid(self) -> int:
        """The workload's process."""
        return self._process.pid

    def expect(self, step: str) -> None:
        """Wait until the workload says `step`."""
        said = self._line()
        if said != step:
            raise WorkloadError(f"{self._name} said {said!r}, not {step!r}")

    def go(self) -> None:
        """Let it take its next step."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait for the end of the work and give its result."""
        found: dict[str, Any] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode(errors="replace").strip()
        if not line:
            status = self._process.wait()
            raise WorkloadError(f"{self._name} ended early with status {status}")
        return line


@contextlib.contextmanager
def squeeze(*, limit_mib: int, disk_mib: int, latency_ns: int) -> Iterator[Squeeze]:
    """Return a cgroup of `limit_mib` beside a swap disk whose every request takes `latency_ns`.

    Make the disk twice as large as what is walked over: pages that were read back keep their
    place on it, and where none is left the kernel kills.

    Raises
    ------
    KernelFeatureMissing
        If this machine has no cgroup v2 memory controller or no null_blk.
    WorkloadError
        If it swaps already: pages would go elsewhere.
    """
    if swap_areas():
        raise WorkloadError(
            "this machine swaps already; the squeeze needs its own swap", hint="swapoff --all"
        )
    name = f"hyperbox-squeeze-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(cgroup(name, controllers=("memory",)))
        disk = stack.enter_context(
            null_block_device(f"hyperbox{os.getpid()}", size_mib=disk_mib, latency_ns=latency_ns)
        )
        stack.enter_context(swapping(disk))
        group.limit("memory.max", limit_mib * MEBIBYTE)
        yield Squeeze(group, disk)


@contextlib.contextmanager
def walker(
    group: Cgroup, options: Sequence[str], *, program: str = "workloads/memory_walk.py"
) -> Iterator[SteppedWorkload]:
    """Start a workload, a memory walk by default, in `group`; gives it before its first step.

    Python's own memory stays outside: it was paid before. It is killed at the end of the block.
    """
    process = spawn(
        [sys.executable, _PROJECT / program, "--stepwise", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sys.stderr.buffer,
    )
    try:
        walk = SteppedWorkload(process, Path(program).stem)
        walk.expect("started")
        group.add(walk.pid)
        yield walk
    finally:
        stop(process)
