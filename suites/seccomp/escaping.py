"""Escape probes inside containers: what the default stops, a learned profile must stop as well.

The probes of `suites.seccomp.probes` run in a container without a filter, under the default, and
under a profile that was learned from another Python program. A probe is stopped where it fails as
a filter makes it fail: EPERM, ENOSYS, or a signal. Without a filter many of those that the default
stops get further, which shows that they can tell; the others the kernel stops by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.profile import Profile
from hyperbox.isolation.seccomp_gen import generate
from hyperbox.linux.oci_runtime import find_runtime
from hyperbox.runtime.containers import prepared
from hyperbox.runtime.recording import recorded_run
from suites.program import Measured, run_program
from suites.seccomp.learning import Ran, container, container_root, ran
from suites.seccomp.patterns import PATTERNS

__all__ = ["main", "newly_allowed", "stopped"]

_PROBES = Path(__file__).with_name("probes.py")
_FEWEST = 20  # probes that the default stops, lest the comparison says nothing


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def _measure() -> Measured:
    default = default_profile()
    with tempfile.TemporaryDirectory() as place:
        runtime = find_runtime(Path(place)).name
    with container_root() as rootfs:
        scripts = PATTERNS["python"].runs.values()
        recordings = []
        for script in scripts:
            with prepared(container(rootfs, script, default), runtime=runtime) as running:
                found = recorded_run(
                    running, default, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
            recordings.append(found.recording)
        learned = generate(recordings, default).profile
        outcomes = {
            name: _probed(rootfs, profile, runtime)
            for name, profile in (("none", None), ("default", default), ("learned", learned))
        }
    free, under_default, under_learned = outcomes.values()
    by_default = stopped(under_default)
    metrics = {
        "newly_allowed": float(len(newly_allowed(under_default, under_learned))),
        "probes": float(len(under_default)),
        "stopped_by_default": float(len(by_default - stopped(free))),
        "lacking": float(max(0, _FEWEST - len(by_default - stopped(free)))),
        "stopped_by_learned": float(len(stopped(under_learned) - stopped(free))),
    }
    return Measured(metrics, {"outcomes": outcomes, "runtime": runtime})


def _probed(rootfs: Path, profile: Profile | None, runtime: str) -> Mapping[str, str]:
    described = container(rootfs, "", default_profile())
    command = ("/usr/bin/python3", "-c", _PROBES.read_text())
    found: Ran = ran(replace(described, command=command, seccomp=profile), runtime)
    if found.ended != "exit 0":
        raise WorkloadError(f"the probes did not run: {found.ended}")
    outcomes: Mapping[str, str] = json.loads(found.output)
    return outcomes


def stopped(outcomes: Mapping[str, str]) -> frozenset[str]:
    """Return the probes that ended as a filter, or the kernel, ends what it does not allow."""
    return frozenset(
        name
        for name, outcome in outcomes.items()
        if outcome in ("EPERM", "ENOSYS") or outcome.startswith("SIG")
    )


def newly_allowed(default: Mapping[str, str], learned: Mapping[str, str]) -> frozenset[str]:
    """Return the probes that the default stops and a learned profile does not."""
    return stopped(default) - stopped(learned)


if __name__ == "__main__":
    sys.exit(main())
