"""A kernel booted with psi=0: everything says so in one line, and nothing fails or changes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import hyperbox
from hyperbox.errors import ExitCode, WorkloadError
from hyperbox.linux.knob import read_knob
from hyperbox.linux.pressure import PROC_PRESSURE
from hyperbox.processes import run
from suites.daemon import Daemon, running_daemon
from suites.judge import Judge
from suites.program import Measured, run_program

_REASON = "psi=0"
_WATCHED = ("/proc/swaps", "/proc/sys/vm/page-cluster", "/proc/sys/vm/swappiness")


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def _measure() -> Measured:
    if (PROC_PRESSURE / "memory").exists():
        raise WorkloadError("this kernel was not booted with psi=0: it gives pressure")
    judge = Judge()
    before = _state()
    for module in ("hyperbox.memory.monitor", "hyperbox.memory.tune"):
        _program(module, judge)
    with running_daemon(["--tune"]) as daemon:
        _endpoint(daemon, judge)
        status, _ = daemon.end()
    judge.expect(status == 0, f"SIGTERM ended the daemon with {status}")
    judge.expect(_state() == before, "something of the machine was changed")
    return judge.measured({"values": float(judge.compared)})


def _program(module: str, judge: Judge) -> None:
    """Run a program that reads pressure: one line, its own exit status, no output."""
    package = Path(hyperbox.__file__).resolve().parent.parent
    done = run(
        [sys.executable, "-m", module, "--count", "1"],
        timeout=120,
        environment={"PYTHONPATH": os.fspath(package)},
        check=False,
    )
    said = done.stderr.decode(errors="replace").splitlines()
    judge.expect(done.status == ExitCode.HARNESS_ERROR, f"{module} ended with {done.status}")
    judge.expect(len(said) == 1, f"{module} said {len(said)} lines")
    judge.expect(any(_REASON in line for line in said), f"{module} does not say why: {said}")
    judge.expect(not done.stdout, f"{module} printed {len(done.stdout)} bytes")


def _endpoint(daemon: Daemon, judge: Judge) -> None:
    """Ask the daemon: it answers, says unavailable and why, and is healthy."""
    answer = daemon.get("/metrics/memory/psi")
    said = json.loads(answer.body)
    judge.expect(answer.status == 200, f"status {answer.status}")
    judge.expect(said.get("available") is False, "pressure is said to be available")
    judge.expect(_REASON in said.get("reason", ""), f"the reason is {said.get('reason')!r}")
    metrics = daemon.get("/metrics")
    judge.expect(metrics.status == 200, f"/metrics: status {metrics.status}")
    judge.expect("node_pressure" not in metrics.body, "/metrics has pressure counters")
    health = daemon.get("/healthz")
    judge.expect(health.status == 200, f"/healthz: status {health.status}")


def _state() -> Mapping[str, str]:
    """Return what a tuner would change ahead of need."""
    found = {name: read_knob(Path(name)) for name in _WATCHED}
    found["zram"] = " ".join(sorted(path.name for path in Path("/sys/block").glob("zram*")))
    return found


if __name__ == "__main__":
    sys.exit(main())
