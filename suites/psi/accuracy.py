"""Holds everything that the sampler says against the kernel's own files, under pressure.

Three kinds of deviation are counted: a total that lies outside what the kernel said just
before and just after; a 10 s average that a 50 ms recording of the totals refutes; an
avg10 replica that lies further from the kernel's avg10 than its own stated error. Machine
and cgroup, every line that the kernel prints.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.linux.cgroup import Cgroup
from hyperbox.linux.pressure import PROC_PRESSURE, Resource, cgroup_files, system_files
from hyperbox.memory.psi import INTERVAL_S, PressureSample, Sampler
from hyperbox.processes import spawn, stop
from suites.program import Measured, run_program, seed
from suites.psi.reference import Moment, RawReader, ReferenceRecording, total_is_right
from suites.squeeze import squeeze, walker

_SAMPLES = 7  # at the default 5 s: 30 s; from the third on the window is full
_REFERENCE_S = 0.05
_LATENCY_NS = 20_000_000  # a slow disk: much stall for few instructions
_PAUSE_US = 2000  # after 16 accesses: hits alone must not make it a CPU load
# All pages alike, half as many again as fit, and few enough to go round in seconds: every page
# that comes back is working set. From 6.1 on, others do not count as memory stall.
_MEMORY_MIB = 8
_WALK_MIB = 12
_ENOUGH_STALL_US = 100_000  # of cpu, memory and io each, or the test could not fail
_NEEDED = (Resource.CPU, Resource.MEMORY, Resource.IO)
_BURSTS = Path(__file__).resolve().parents[2] / "workloads" / "cpu_bursts.py"


@dataclass(frozen=True)
class ReadingCheck:
    """One sample of the product between two readings of the reference."""

    before: Moment
    sample: PressureSample
    after: Moment
    boxcar: Mapping[tuple[str, str], tuple[float, float, float]]
    """Percent, stated error, span in seconds."""
    replica: Mapping[tuple[str, str], tuple[float, float]]
    """Percent, stated error."""


@dataclass
class Tally:
    """What the checks of one scope found."""

    readings: int = 0
    wrong_totals: int = 0
    wrong_averages: int = 0
    wrong_replicas: int = 0
    averages: int = 0
    worst_total_us: int = 0
    worst_average: float = 0.0
    worst_replica: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def deviations(self) -> int:
        """Everything that was wrong."""
        return self.wrong_totals + self.wrong_averages + self.wrong_replicas


class _Scope:
    """The machine or a cgroup: the product's sampler and the reference beside it."""

    def __init__(self, name: str, sampler: Sampler, raw: RawReader) -> None:
        self.name = name
        self.sampler = sampler
        self.raw = raw
        self.moments: list[Moment] = []
        self.checks: list[ReadingCheck] = []

    def record(self) -> Moment:
        moment = self.raw.read()
        self.moments.append(moment)
        return moment

    def check(self) -> None:
        before = self.record()
        sample = self.sampler.sample()
        after = self.record()
        boxcars, replicas = {}, {}
        for resource, kind in sample.lines():
            key = (str(resource), str(kind))
            if own := self.sampler.boxcar(resource, kind):
                boxcars[key] = (own.percent, own.error, own.span_s)
            if copy := self.sampler.replica(resource, kind):
                replicas[key] = (copy.percent, copy.error)
        self.checks.append(ReadingCheck(before, sample, after, boxcars, replicas))


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def judge(check: ReadingCheck, recording: ReferenceRecording, tally: Tally) -> None:
    """Add what one check finds to the tally."""
    lines = {(str(key[0]), str(key[1])): line for key, line in check.sample.lines().items()}
    for key in check.before.totals_us.keys() | lines.keys():
        name = "/".join(key)
        tally.readings += 1
        line = lines.get(key)
        if line is None or key not in check.after.totals_us:
            tally.wrong_totals += 1
            tally.wrong.append(f"{name}: not in both readers")
            continue
        if not total_is_right(check.before, line.total_us, check.after, key):
            tally.wrong_totals += 1
            low, high = check.before.totals_us[key], check.after.totals_us[key]
            tally.worst_total_us = max(
                tally.worst_total_us, low - line.total_us, line.total_us - high
            )
            tally.wrong.append(f"{name}: total {line.total_us} not in {low} ... {high}")
        _judge_average(check, key, recording, tally)
        _judge_replica(check, key, tally)


def _judge_average(
    check: ReadingCheck, key: tuple[str, str], recording: ReferenceRecording, tally: Tally
) -> None:
    percent, stated, span_s = check.boxcar.get(key, (0.0, 0.0, 0.0))
    if span_s < 9.999:  # the window is not full yet
        return
    end_ns = check.sample.time_ns
    bounds = recording.share_bounds(key, end_ns - int(span_s * 1e9), end_ns)
    if bounds is None:
        return
    tally.averages += 1
    low, high = bounds
    tally.worst_average = max(tally.worst_average, abs(percent - (low + high) / 2))
    if not low - stated <= percent <= high + stated:
        tally.wrong_averages += 1
        tally.wrong.append(
            f"{'/'.join(key)}: average {percent:.3f} ±{stated:.3f} not in {low:.3f} ... {high:.3f}"
        )


def _judge_replica(check: ReadingCheck, key: tuple[str, str], tally: Tally) -> None:
    if key not in check.replica:
        return
    percent, stated = check.replica[key]
    # The kernel may step between the two readings: either value is its word.
    off = min(abs(percent - moment.avg10[key]) for moment in (check.before, check.after))
    tally.worst_replica = max(tally.worst_replica, off)
    if off > stated:
        tally.wrong_replicas += 1
        tally.wrong.append(f"{'/'.join(key)}: replica off by {off:.2f}, stated {stated:.2f}")


def _measure() -> Measured:
    walk = ["--mib", str(_WALK_MIB), "--accesses", "20000", "--seed", str(seed())]
    walk += ["--pause-us", str(_PAUSE_US), "--hot-share", "0"]
    length_s = INTERVAL_S * _SAMPLES + 5
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(
            squeeze(limit_mib=_MEMORY_MIB, disk_mib=2 * _WALK_MIB, latency_ns=_LATENCY_NS)
        )
        scopes = stack.enter_context(_scopes(place.group))
        stack.enter_context(_bursts(place.group))
        load = stack.enter_context(walker(place.group, [*walk, "--seconds", str(length_s)]))
        load.go()
        load.expect("filled")
        for scope in scopes:
            scope.record()
        load.go()
        _sample(scopes)
    return _result(scopes)


@contextlib.contextmanager
def _scopes(group: Cgroup) -> Iterator[tuple[_Scope, ...]]:
    with contextlib.ExitStack() as stack:
        system = stack.enter_context(Sampler(system_files()))
        limited = stack.enter_context(Sampler(cgroup_files(group.directory)))
        yield (
            _Scope("machine", system, RawReader(_readable(PROC_PRESSURE, ""))),
            _Scope("cgroup", limited, RawReader(_readable(group.directory, ".pressure"))),
        )


@contextlib.contextmanager
def _bursts(group: Cgroup) -> Iterator[None]:
    """Let two processes of the cgroup want the CPU at the same time."""
    process = spawn([sys.executable, _BURSTS], stdin=subprocess.DEVNULL, stderr=sys.stderr.buffer)
    try:
        group.add(process.pid)
        yield
    finally:
        stop(process)


def _sample(scopes: tuple[_Scope, ...]) -> None:
    """Record every 50 ms, and every 5 s let the sampler read between two recordings."""
    start = time.monotonic()
    every = round(INTERVAL_S / _REFERENCE_S)
    for step in range((_SAMPLES - 1) * every + 2):
        time.sleep(max(0.0, start + step * _REFERENCE_S - time.monotonic()))
        for scope in scopes:
            if step % every == 0:
                scope.check()
            else:
                scope.record()


def _result(scopes: tuple[_Scope, ...]) -> Measured:
    tallies: dict[str, Tally] = {}
    stalls: dict[str, dict[str, int]] = {}
    for scope in scopes:
        recording = ReferenceRecording(scope.moments)
        tally = tallies[scope.name] = Tally()
        for check in scope.checks:
            judge(check, recording, tally)
        stalls[scope.name] = _stalls(scope)
    found = tuple(tallies.values())
    if not all(tally.averages for tally in found):
        raise WorkloadError("no average could be compared with the recording")
    metrics = {
        "readings": sum(tally.readings for tally in found),
        "averages": sum(tally.averages for tally in found),
        "deviations": sum(tally.deviations for tally in found),
        "wrong_totals": sum(tally.wrong_totals for tally in found),
        "wrong_averages": sum(tally.wrong_averages for tally in found),
        "wrong_replicas": sum(tally.wrong_replicas for tally in found),
        "worst_total_us": max(tally.worst_total_us for tally in found),
        "worst_average": max(tally.worst_average for tally in found),
        "worst_replica": max(tally.worst_replica for tally in found),
        **{f"{name}_stall_us": stalls["machine"][name] for name in _NEEDED},
    }
    wrong = [f"{name}: {text}" for name, tally in tallies.items() for text in tally.wrong]
    return Measured(metrics, {"wrong": wrong[:20], "stall_us": stalls})


def _stalls(scope: _Scope) -> dict[str, int]:
    """Return the stall of each line over the recording; too little is a failure."""
    first, last = scope.moments[0].totals_us, scope.moments[-1].totals_us
    some = {
        name: last[name, "some"] - first[name, "some"] for name, kind in first if kind == "some"
    }
    for name in _NEEDED:
        if some[name] < _ENOUGH_STALL_US:
            raise WorkloadError(
                f"the load gave the {scope.name} {some[name]} us of {name} stall, "
                f"less than {_ENOUGH_STALL_US}"
            )
    return some


def _readable(directory: Path, suffix: str) -> dict[str, Path]:
    paths = {str(resource): directory / f"{resource}{suffix}" for resource in Resource}
    return {name: path for name, path in paths.items() if path.exists()}


if __name__ == "__main__":
    sys.exit(main())
