"""``hyperbox run --learn-seccomp`` and ``--seccomp`` on real containers, from end to end.

Two runs are learned by the command, one of which fails; then the store must hold what
docs/seccomp.md says, and the runs must end and print under their profile as they did before. A
command that the profile lacks a call for must fail.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hyperbox.isolation.default_profile import NEWEST, default_profile
from hyperbox.isolation.seccomp_gen import generate, validate
from hyperbox.isolation.store import ProfileStore
from hyperbox.linux.cgroup import cgroup_root
from hyperbox.processes import Completed, run
from suites.program import Measured, run_program
from suites.seccomp.learning import container_root

__all__ = ["main"]

_TIMEOUT_S = 120.0
_NAME = "web"
_WORK = ("/bin/sh", "-c", "echo one > /tmp/a; cat /tmp/a; ls /tmp | sort; rm /tmp/a")
_FAILING = ("/bin/sh", "-c", "cat /nosuch 2> /dev/null; echo end; exit 3")
_STATUSES = {_WORK: 0, _FAILING: 3}
_OTHER = ("/bin/sh", "-c", "mkfifo /tmp/f && rm /tmp/f && echo made")
_NOT_THERE = 127


class _Expectations:
    """What was expected, and what of it was not so."""

    def __init__(self) -> None:
        self.count = 0
        self.failed: list[str] = []

    def expect(self, what: str, *, found: object, wanted: object = True) -> None:
        """Count an expectation; keep it with what was found if that is not what was wanted."""
        self.count += 1
        if found != wanted:
            self.failed.append(f"{what}: {found!r}")


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def _measure() -> Measured:
    expectations = _Expectations()
    with container_root() as rootfs, tempfile.TemporaryDirectory() as place:
        store = Path(place) / "store"

        def call(*words: str) -> Completed:
            command = [sys.executable, "-m", "hyperbox", "run", "--rootfs", os.fspath(rootfs)]
            command += ["--store", os.fspath(store)]
            command += [part for path in ("/usr", "/etc") for part in ("-v", f"{path}:{path}:ro")]
            environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
            return run([*command, *words], timeout=_TIMEOUT_S, check=False, environment=environment)

        said = _learn_and_enforce(call, expectations)
        _look_at(store, expectations)
    left = [path.name for path in cgroup_root().glob("**/hyperbox-*") if path.is_dir()]
    expectations.expect("cgroups left behind", found=left, wanted=[])
    metrics = {
        "deviations": float(len(expectations.failed)),
        "expectations": float(expectations.count),
    }
    return Measured(metrics, {"failed": expectations.failed, "said": said})


def _learn_and_enforce(call: Callable[..., Completed], expectations: _Expectations) -> list[str]:
    """Run everything; return what learning said."""
    expect = expectations.expect
    plain = {command: call("--", *command) for command in _STATUSES}
    said = []
    for option, when in ((f"--learn-seccomp={_NAME}", "while learning"), ("--seccomp", "enforced")):
        value = (_NAME,) if option == "--seccomp" else ()
        for command, status in _STATUSES.items():
            what = f"{' '.join(command)}, {when}"
            found = call(option, *value, "--", *command)
            expect(f"status of {what}", found=found.status, wanted=status)
            expect(f"output of {what}", found=found.stdout, wanted=plain[command].stdout)
            said += found.stderr.decode(errors="replace").splitlines()
    expect("another command, under the default", found=call("--", *_OTHER).status, wanted=0)
    denied = call("--seccomp", _NAME, "--", *_OTHER)
    expect("another command is denied its call", found=denied.status != 0 and not denied.stdout)
    absent = call("--seccomp", _NAME, "--", "/nosuch").status
    expect("status without a command", found=absent, wanted=_NOT_THERE)
    return said


def _look_at(directory: Path, expectations: _Expectations) -> None:
    expect = expectations.expect
    store = ProfileStore(directory)
    recordings = store.recordings(_NAME)
    expect("recordings", found=len(recordings), wanted=2)
    expect("lost observations", found=sum(one.lost for one in recordings), wanted=0)
    found = store.load(_NAME)
    default = default_profile()
    profile = directory / _NAME / "versions" / f"{found.number:04d}" / "profile.json"
    made = generate(recordings, default).profile
    expect("the profile is that of its runs", found=profile.read_bytes() == made.encoded())
    backup = profile.with_name("default.json")
    expect("backup of the default", found=backup.read_bytes() == default.encoded())
    expect("the profile is within the default", found=validate(found.profile, default).holds)
    metadata = found.metadata
    expect("metadata: default", found=metadata["default"], wanted=NEWEST)
    expect("metadata: runs", found=metadata["runs"], wanted=2)
    expect("metadata: kernel", found=metadata["environment"]["kernel"], wanted=platform.release())
    for fact in ("generated", "size", "default_size", "programs", "new_calls", "expected_next"):
        expect(f"metadata: {fact}", found=bool(metadata.get(fact)))
    expect("metadata: runtime", found=bool(metadata["environment"].get("runtime")))


if __name__ == "__main__":
    sys.exit(main())
