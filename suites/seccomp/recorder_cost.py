"""What recording takes from production-like work in a container: building with gcc, and Redis.

Both arms run the same container under the default profile, one of them recorded by BPF. Loading the
recorder and starting the container are not in the measured time, which is the container's own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.isolation.default_profile import default_profile
from hyperbox.linux.oci_runtime import RUNTIMES
from hyperbox.processes import require
from hyperbox.runtime.containers import prepared
from hyperbox.runtime.recording import recorded_run
from suites.program import Measured, run_program
from suites.seccomp.learning import Ran, container, container_root, ran
from suites.seccomp.patterns import REDIS_DOWN, REDIS_UP

__all__ = ["main"]

_BENCHMARK = "redis-benchmark -q -n {count} -c 5 -t set,get > /dev/null"
_SOURCE = '#include <stdio.h>\\nint main(void){puts("made");return 0;}\\n'
_WORKS = {
    "redis": (
        f"{REDIS_UP}\n{_BENCHMARK.format(count=500)}",
        _BENCHMARK.format(count=4000),
        REDIS_DOWN,
    ),
    "gcc": (
        f"cd /tmp; printf '{_SOURCE}' > a.c; gcc -O2 a.c -o a",
        "for i in 1 2 3; do gcc -O2 a.c -o a || exit 1; done",
        "rm -f a a.c",
    ),
}
"""What goes before, what is timed, and what comes after."""


def main() -> int:
    """Measure; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", choices=tuple(_WORKS), required=True)
    parser.add_argument("--arm", choices=("unrecorded", "recorded"), required=True)
    parser.add_argument("--runtime", choices=RUNTIMES, default="crun")
    chosen = parser.parse_args()
    recorded = chosen.arm == "recorded"
    return run_program(lambda: _measure(chosen.work, chosen.runtime, recorded=recorded))


def _measure(work: str, runtime: str, *, recorded: bool) -> Measured:
    require(runtime, runtime)
    before, timed, after = _WORKS[work]
    script = f"{before}; date +%s%N; {timed}; date +%s%N; {after}"
    with container_root() as rootfs:
        found, lost = (
            _recorded(rootfs, script, runtime) if recorded else _plain(rootfs, script, runtime)
        )
    try:
        first_ns, last_ns = map(int, found.output.split())
    except ValueError:
        raise WorkloadError(f"{found.output!r}; {found.ended}") from None
    return Measured({"elapsed_us": (last_ns - first_ns) / 1000, "lost": float(lost)})


def _plain(rootfs: Path, script: str, runtime: str) -> tuple[Ran, int]:
    return ran(container(rootfs, script, default_profile()), runtime), 0


def _recorded(rootfs: Path, script: str, runtime: str) -> tuple[Ran, int]:
    default = default_profile()
    described = container(rootfs, script, default)
    with prepared(described, runtime=runtime) as running, tempfile.TemporaryFile() as stream:
        found = recorded_run(running, default, ("bpf",), stdin=subprocess.DEVNULL, stdout=stream)
        stream.seek(0)
        return Ran(str(found.ended), stream.read()), found.recording.lost


if __name__ == "__main__":
    sys.exit(main())
