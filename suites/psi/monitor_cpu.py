"""CPU time of the real monitor process while the machine is under memory pressure.

The clock is the kernel's exact sum of user and system time of the process; the percentage
is of one CPU, so on larger machines the share of the machine is smaller still. Starting
Python is paid once and reported apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import hyperbox
from hyperbox.errors import WorkloadError
from hyperbox.linux.pressure import PROC_PRESSURE, PressureFile, Resource
from hyperbox.linux.process_clock import process_cpu_ns
from hyperbox.memory.psi import INTERVAL_S
from hyperbox.processes import spawn, stop
from suites.program import Measured, run_program, seed
from suites.squeeze import squeeze, walker

_DEFAULT_SAMPLES = 6  # half a minute at the default interval
_FAST_S, _FAST_SAMPLES = 0.1, 30
_LATENCY_NS = 40_000_000  # a busy hard disk: much stall for few instructions
_PAUSE_US = 2000  # after 16 accesses: hits alone must not make it a CPU load
_MEMORY_MIB = 24
_WALK_MIB = 32
# Percent of stall below which "high load" would be a lie. Of memory or of storage: from
# 6.1 on reading back a page counts as memory stall only if it was in the working set.
_HIGH_LOAD = 50.0


@dataclass(frozen=True)
class _Cost:
    """What a monitor took: to start and sample once, and then over `wall_s` seconds."""

    start_ms: float
    cpu_ms: float
    wall_s: float
    samples: int

    @property
    def percent(self) -> float:
        """CPU time over wall time."""
        return self.cpu_ms / 10 / self.wall_s


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def _measure() -> Measured:
    length_s = INTERVAL_S * _DEFAULT_SAMPLES + _FAST_S * _FAST_SAMPLES + 10
    walk = ["--mib", str(_WALK_MIB), "--accesses", "20000", "--seed", str(seed())]
    walk += ["--pause-us", str(_PAUSE_US)]
    with (
        squeeze(limit_mib=_MEMORY_MIB, disk_mib=2 * _WALK_MIB, latency_ns=_LATENCY_NS) as place,
        walker(place.group, [*walk, "--seconds", str(length_s)]) as load,
        PressureFile(Resource.MEMORY, PROC_PRESSURE / Resource.MEMORY) as memory,
        PressureFile(Resource.IO, PROC_PRESSURE / Resource.IO) as storage,
    ):
        load.go()
        load.expect("filled")
        load.go()
        files = (memory, storage)
        before, began = [_total_us(file) for file in files], time.monotonic()
        normal = _cost(INTERVAL_S, _DEFAULT_SAMPLES)
        fast = _cost(_FAST_S, _FAST_SAMPLES)
        wall_us = (time.monotonic() - began) * 1e6
        grown = [_total_us(file) - total for file, total in zip(files, before, strict=True)]
    memory_some, io_some = (100 * stall_us / wall_us for stall_us in grown)
    if max(memory_some, io_some) < _HIGH_LOAD or not memory_some:
        raise WorkloadError(
            f"the load stalled on memory {memory_some:.1f} % and on storage {io_some:.1f} % of "
            f"the time: not high load, which is {_HIGH_LOAD:g} %"
        )
    return Measured(
        {
            "monitor_cpu": normal.percent,
            "monitor_cpu_100ms": fast.percent,
            "sample_us": normal.cpu_ms * 1e3 / normal.samples,
            "start_ms": normal.start_ms,
            "memory_some": memory_some,
            "io_some": io_some,
        },
        {"wall_s": normal.wall_s, "samples": normal.samples},
    )


def _cost(interval_s: float, samples: int) -> _Cost:
    """Run the monitor for its first sample and `samples` more."""
    package = Path(hyperbox.__file__).resolve().parent.parent
    argv = [sys.executable, "-m", "hyperbox.memory.monitor", "--interval", str(interval_s)]
    process = spawn(
        argv,
        environment={"PYTHONPATH": os.fspath(package)},
        stdout=subprocess.PIPE,
        stderr=sys.stderr.buffer,
    )
    try:
        _next_sample(process)
        first_ns, began = process_cpu_ns(process.pid), time.monotonic()
        for _ in range(samples):
            _next_sample(process)
        last_ns, ended = process_cpu_ns(process.pid), time.monotonic()
    finally:
        stop(process)
    return _Cost(first_ns / 1e6, (last_ns - first_ns) / 1e6, ended - began, samples)


def _next_sample(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    if not process.stdout.readline():
        raise WorkloadError(f"the monitor ended early with status {process.wait()}")


def _total_us(file: PressureFile) -> int:
    some = file.read().some
    if some is None:
        raise WorkloadError(f"{file.path} has no line of some")
    return some.total_us


if __name__ == "__main__":
    sys.exit(main())
