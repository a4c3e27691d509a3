"""Where BPF cannot record, another recorder learns the same profile.

A kernel that is locked down for confidentiality (kernel_lockdown(7)) lets no BPF program read
kernel memory, so that the recorder cannot tell under which filter a call ran. The same container is
recorded by BPF before, and after by what takes its place: the audit log, and user notification
where there is no audit either. What audit learns must be equal; a filter with notifications is
loaded earlier, so that more of the runtime's own calls are seen, and nothing may be missing.
Lockdown stays until the next boot, so this is for guests only.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.profile import Profile
from hyperbox.isolation.recorders import BACK_ENDS
from hyperbox.isolation.seccomp_gen import generate
from hyperbox.linux.knob import write_knob
from hyperbox.linux.mounts import mount, mounts
from hyperbox.linux.oci_runtime import RUNTIMES
from hyperbox.processes import require
from hyperbox.runtime.containers import prepared
from hyperbox.runtime.recording import Recorded, recorded_run
from suites.program import Measured, run_program
from suites.seccomp.learning import container, container_root
from suites.seccomp.patterns import PATTERNS

__all__ = ["main"]

_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_GUESTS_ONLY = "hyperbox.nvdimms="


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def _measure() -> Measured:
    for runtime in RUNTIMES:
        require(runtime, runtime)
    with container_root() as rootfs:
        by_bpf = {runtime: _recorded(rootfs, runtime, ("bpf",)) for runtime in RUNTIMES}
        _lock_down_guest()
        others = {
            (runtime, name): _recorded(rootfs, runtime, back_ends)
            for runtime in RUNTIMES
            for name, back_ends in (("audit", BACK_ENDS), ("notify", ("bpf", "notify")))
        }
    different: list[str] = []
    extra: set[str] = set()
    unclear: list[str] = []
    for (runtime, name), found in others.items():
        wanted, made = _profile(by_bpf[runtime]).allowed(), _profile(found).allowed()
        wrong = wanted ^ made if name == "audit" else wanted - made
        different += [f"{runtime}, {name}: {call}" for call in sorted(wrong)]
        extra |= made - wanted
        reasons = [line for line in found.passed_over if line.startswith("bpf: ")]
        if found.recording.back_end != name or len(reasons) != 1 or "\n" in reasons[0]:
            unclear.append(f"{runtime}: {found.recording.back_end} after {found.passed_over}")
    lost = sum(found.recording.lost for found in others.values())
    metrics = {
        "different": float(len(different)),
        "extra": float(len(extra)),
        "unclear": float(len(unclear)),
        "lost": float(lost),
        "names": float(len(_profile(by_bpf[RUNTIMES[0]]).allowed())),
    }
    said = sorted({line for found in others.values() for line in found.passed_over})
    return Measured(
        metrics, {"different": different, "extra": sorted(extra), "unclear": unclear, "said": said}
    )


def _profile(found: Recorded) -> Profile:
    return generate([found.recording], default_profile()).profile


def _recorded(rootfs: Path, runtime: str, back_ends: tuple[str, ...]) -> Recorded:
    default = default_profile()
    described = container(rootfs, PATTERNS["shell"].runs["files"], default)
    with prepared(described, runtime=runtime) as running:
        found = recorded_run(
            running, default, back_ends, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    if str(found.ended) != "exit 0":
        raise WorkloadError(f"the container ended by {found.ended}")
    return found


def _lock_down_guest() -> None:
    if _GUESTS_ONLY not in Path("/proc/cmdline").read_text():
        raise WorkloadError("lockdown stays until the next boot: it is tried in guests only")
    if not mounts("securityfs"):
        mount("securityfs", _LOCKDOWN.parent)
    write_knob(_LOCKDOWN, "confidentiality")


if __name__ == "__main__":
    sys.exit(main())
