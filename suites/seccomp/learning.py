"""Learns a pattern's profile from its runs in real containers, and judges it.

Every run is recorded under the default profile. The profile of all runs is measured, proven to be
contained in the default, made again in other orders and with other hash seeds, and enforced: every
run must then end and print as it did under the default. Leaving one run out at a time counts what a
profile from the others would have denied it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.profile import Profile
from hyperbox.isolation.recorders import BACK_ENDS
from hyperbox.isolation.recording import Recording
from hyperbox.isolation.seccomp_gen import completeness, false_negatives, generate, validate
from hyperbox.linux.oci_runtime import RUNTIMES
from hyperbox.processes import require, run
from hyperbox.runtime.bundle import BindMount, Container
from hyperbox.runtime.containers import RunningContainer, prepared
from hyperbox.runtime.recording import recorded_run
from suites.program import Measured, run_program
from suites.seccomp.patterns import PATTERNS, Pattern

__all__ = ["Ran", "container", "container_root", "main", "ran"]

_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Ran:
    """How a run ended, and what it printed."""

    ended: str
    output: bytes


def main() -> int:
    """Measure; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pattern", choices=tuple(PATTERNS), required=True)
    parser.add_argument("--learn-under", default="runc", choices=RUNTIMES)
    parser.add_argument("--enforce-under", default="crun", choices=RUNTIMES)
    parser.add_argument("--recorder", default="bpf", choices=BACK_ENDS)
    parser.add_argument(
        "--no-new-privileges",
        action="store_true",
        help="learn in containers that set it: runtimes then load the filter later",
    )
    chosen = parser.parse_args()
    return run_program(lambda: _measure(PATTERNS[chosen.pattern], chosen))


def _measure(pattern: Pattern, chosen: argparse.Namespace) -> Measured:
    learn_under, enforce_under = chosen.learn_under, chosen.enforce_under
    for program in (*pattern.needs, learn_under, enforce_under):
        require(program, program)
    default = default_profile()
    with container_root() as rootfs:
        learned = {
            name: _learned(
                replace(
                    container(rootfs, script, default), no_new_privileges=chosen.no_new_privileges
                ),
                learn_under,
                (chosen.recorder,),
            )
            for name, script in pattern.runs.items()
        }
        broken = {name: ran.ended for name, (ran, _) in learned.items() if ran.ended != "exit 0"}
        if broken:
            raise WorkloadError(f"runs failed under the default profile: {broken}")
        recordings = [recording for _, recording in learned.values()]
        profile = generate(recordings, default).profile
        enforced = {
            name: ran(container(rootfs, script, profile), enforce_under)
            for name, script in pattern.runs.items()
        }
    differing = [name for name, ran in enforced.items() if ran != learned[name][0]]
    return _judged(recordings, profile, default, differing)


def _judged(
    recordings: Sequence[Recording], profile: Profile, default: Profile, differing: Sequence[str]
) -> Measured:
    validation = validate(profile, default)
    size, whole = validation.size, validation.default_size
    missing = false_negatives(recordings, default)
    found = completeness(recordings)
    metrics = {
        "names_left": 100.0 * size.names / whole.names,
        "instructions_left": 100.0 * size.instructions / whole.instructions,
        "json_left": 100.0 * size.json_bytes / whole.json_bytes,
        "names": float(size.names),
        "violations": float(len(validation.containment.violations)),
        "classes": float(validation.containment.classes),
        "false_negatives": 100.0 * missing.rate,
        "enforced_failures": float(len(differing)),
        "different_profiles": float(_different(recordings, profile) - 1),
        "lost": float(sum(recording.lost for recording in recordings)),
        "runs": float(len(recordings)),
    }
    notes = {
        "missing": [list(names) for names in missing.missing],
        "differing": list(differing),
        "expected_next": found.expected_next,
        "warnings": list(found.warnings),
        "allowed": sorted(profile.allowed()),
        "unknown_to_libseccomp": list(validation.unknown),
    }
    return Measured(metrics, notes)


def _different(recordings: Sequence[Recording], profile: Profile) -> int:
    """Return how many different profiles the recordings make: in all orders, with other seeds."""
    made = {profile.encoded()}
    for order in itertools.islice(itertools.permutations(recordings), 24):
        made.add(generate(order, default_profile()).profile.encoded())
    data = b"".join(recording.encoded() for recording in recordings)
    for seed in ("0", "1"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "suites.seccomp.generating"]
        done = run(command, timeout=_TIMEOUT_S, data=data, environment=environment)
        made.add(done.stdout)
    return len(made)


def _learned(
    container: Container, runtime: str, back_ends: tuple[str, ...]
) -> tuple[Ran, Recording]:
    with prepared(container, runtime=runtime) as running, tempfile.TemporaryFile() as stream:
        found = recorded_run(
            running, default_profile(), back_ends, stdin=subprocess.DEVNULL, stdout=stream
        )
        stream.seek(0)
        return Ran(str(found.ended), stream.read()), found.recording


def ran(container: Container, runtime: str) -> Ran:
    """Run a container under a runtime and return how it ended."""
    with prepared(container, runtime=runtime) as running:
        return _output(running)


def _output(running: RunningContainer) -> Ran:
    with tempfile.TemporaryFile() as stream:
        ended = running.run(stdin=subprocess.DEVNULL, stdout=stream)
        stream.seek(0)
        return Ran(str(ended), stream.read())


def container(rootfs: Path, script: str, profile: Profile) -> Container:
    """Return a container that runs a script with this machine's programs, under a profile."""
    mounts = tuple(BindMount(Path(path), path, writable=False) for path in ("/usr", "/etc"))
    command = ("/bin/sh", "-c", textwrap.dedent(script))
    return Container(rootfs, command, mounts=mounts, seccomp=profile)


@contextlib.contextmanager
def container_root() -> Iterator[Path]:
    """Return a root for containers that has the programs of this machine; removed after."""
    with tempfile.TemporaryDirectory(prefix="hyperbox-rootfs-") as name:
        root = Path(name)
        root.chmod(0o755)
        for directory in ("usr", "etc", "tmp", "run", "var/tmp", "root"):
            (root / directory).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        for link in ("bin", "sbin", "lib", "lib64"):
            (root / link).symlink_to(f"usr/{link}")
        yield root


if __name__ == "__main__":
    sys.exit(main())
