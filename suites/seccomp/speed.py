"""What a learned profile saves against the default: starting a container, and making many calls.

`--prepare` learns the profile once per kernel; the arms run the same containers under it and under
the default. On one processor, with nothing else to do, elapsed time is the work of runtime, kernel
and command together; in the exact lane it counts instructions.

From Linux 5.11 the kernel keeps a bitmap of the calls that a filter always allows (commit
8e01b51a31a1), so that they do not run the filter; before, every call does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from hyperbox.errors import HarnessError, WorkloadError
from hyperbox.files import write_bytes
from hyperbox.foreign import read_json
from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.profile import Profile, parse_profile
from hyperbox.isolation.seccomp_gen import generate, measure
from hyperbox.linux.oci_runtime import RUNTIMES
from hyperbox.processes import require
from hyperbox.runtime.containers import prepared
from hyperbox.runtime.recording import recorded_run
from suites.program import Measured, run_program
from suites.seccomp.learning import container, container_root, ran

__all__ = ["main"]

_PROFILE = Path("/var/tmp/hyperbox-seccomp-speed.json")  # noqa: S108 - of a guest
_MOST_BYTES = 1 << 20
_STARTS = 3
_CALLS = 10_000
_START = "exit 0"
_COPY = f"dd if=/dev/zero of=/dev/null bs=1 count={_CALLS // 2} 2> /dev/null"
_WALK = "find /usr/lib/python3* -size +1 > /dev/null"
_MANY = f"{_WALK}; {_COPY}; date +%s%N; {_COPY}; date +%s%N; {_WALK}; date +%s%N"
"""The first of each warms up. Filters test numbers in ascending order: those of read and write come
first in all of them, those of a walk (newfstatat, openat) late."""


def main() -> int:
    """Measure, or learn the profile; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--arm", choices=("default", "learned"), default="default")
    parser.add_argument("--runtime", choices=RUNTIMES, default="crun")
    chosen = parser.parse_args()
    if chosen.prepare:
        return run_program(lambda: _prepare(chosen.runtime))
    return run_program(lambda: _measure(chosen.runtime, learned=chosen.arm == "learned"))


def _prepare(runtime: str) -> Measured:
    require(runtime, runtime)
    default = default_profile()
    recordings = []
    with container_root() as rootfs:
        for script in (_START, _MANY):
            with prepared(container(rootfs, script, default), runtime=runtime) as running:
                found = recorded_run(
                    running, default, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
            if str(found.ended) != "exit 0":
                raise WorkloadError(f"the container ended by {found.ended}")
            recordings.append(found.recording)
    write_bytes(_PROFILE, generate(recordings, default).profile.encoded())
    return Measured({})


def _measure(runtime: str, *, learned: bool) -> Measured:
    require(runtime, runtime)
    profile = _learned() if learned else default_profile()
    with container_root() as rootfs:
        start_us = _start_us(rootfs, profile, runtime)
        calls_ns, walk_ns = _spent_ns(rootfs, profile, runtime)
    size = measure(profile)
    metrics = {
        "start_us": start_us,
        "call_ns": calls_ns / _CALLS,
        "walk_us": walk_ns / 1000,
        "instructions": float(size.instructions),
    }
    return Measured(metrics, {"names": size.names})


def _learned() -> Profile:
    return parse_profile(read_json(_PROFILE, most=_MOST_BYTES, refusal=HarnessError), str(_PROFILE))


def _start_us(rootfs: Path, profile: Profile, runtime: str) -> float:
    """Return microseconds from starting the runtime to the end of a container that does nothing."""
    spent_ns = []
    for _ in range(1 + _STARTS):  # the first one warms up
        with prepared(container(rootfs, _START, profile), runtime=runtime) as running:
            before_ns = time.monotonic_ns()
            ended = running.run(stdin=subprocess.DEVNULL)
            spent_ns.append(time.monotonic_ns() - before_ns)
        if str(ended) != "exit 0":
            raise WorkloadError(f"the container ended by {ended}")
    return sum(spent_ns[1:]) / _STARTS / 1000


def _spent_ns(rootfs: Path, profile: Profile, runtime: str) -> tuple[int, int]:
    """Return nanoseconds of a container's reads and writes, and of its walk, by its own clock."""
    found = ran(container(rootfs, _MANY, profile), runtime)
    try:
        first_ns, second_ns, third_ns = map(int, found.output.split())
    except ValueError:
        raise WorkloadError(f"{json.dumps(found.output.decode())}; {found.ended}") from None
    return second_ns - first_ns, third_ns - second_ns


if __name__ == "__main__":
    sys.exit(main())
