"""The samples that the product keeps, compared with what the kernel's files said meanwhile.

The real sampler is watched at its default interval for longer than its history reaches;
around each of its samples the files are read without the product's code.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.linux.pressure import PROC_PRESSURE, PressureFile, Resource, StallKind, system_files
from hyperbox.memory.psi import HISTORY, INTERVAL_S, PressureSample, Sampler, watch
from hyperbox.processes import spawn, stop
from suites.program import Measured, run_program
from suites.psi.reference import Moment, RawReader, total_is_right

__all__ = ["Kept", "Watched", "judge"]

_SAMPLES = HISTORY + 5
_LATE_S = 0.25
_BURSTS = Path(__file__).resolve().parents[2] / "workloads" / "cpu_bursts.py"


@dataclass(frozen=True)
class Kept:
    """A sample and what the files said just before and just after it."""

    before: Moment
    sample: PressureSample
    after: Moment


class Watched(Sampler):
    """The product's sampler; each sample is taken between two readings of the files."""

    def __init__(self, reader: RawReader) -> None:
        super().__init__()
        self.reader = reader
        self.taken: list[Kept] = []

    def sample(self) -> PressureSample:
        """Read, sample, read."""
        before = self.reader.read()
        sample = super().sample()
        self.taken.append(Kept(before, sample, self.reader.read()))
        return sample


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def _measure() -> Measured:
    paths = {str(file.resource): PROC_PRESSURE / file.resource for file in _files()}
    options = ["--burst-ms", "4", "--period-ms", "1000"]
    load = spawn([sys.executable, _BURSTS, *options], stdout=subprocess.DEVNULL)
    try:
        sampler = Watched(RawReader(paths))
        with sampler:
            watch(sampler, lambda _: None, count=_SAMPLES)
        history, taken = sampler.history, sampler.taken
    finally:
        stop(load)
    wrong = judge(history, taken)
    cpu = [one.sample.line(Resource.CPU, StallKind.SOME) for one in (taken[0], taken[-1])]
    stalled = cpu[1].total_us - cpu[0].total_us if cpu[0] and cpu[1] else 0
    if not stalled:
        raise WorkloadError("no CPU pressure while samples were taken: nothing was recorded")
    gaps = [b.time_ns - a.time_ns for a, b in itertools.pairwise(history)]
    metrics = {
        "deviations": float(len(wrong)),
        "samples": float(len(history)),
        "lines": float(sum(len(one.lines()) for one in history)),
        "interval_s": (history[-1].time_ns - history[0].time_ns) / 1e9 / max(len(gaps), 1),
        "worst_interval_s": max(abs(gap / 1e9 - INTERVAL_S) for gap in gaps),
        "cpu_stall_us": float(stalled),
    }
    return Measured(metrics, {"wrong": wrong[:20]})


def _files() -> Sequence[PressureFile]:
    files = system_files()
    for file in files:
        file.close()
    return files


def judge(history: Sequence[PressureSample], taken: Sequence[Kept]) -> list[str]:
    """Say what is wrong with the samples kept: which, their order, their time, their totals."""
    wrong = []
    wanted = taken[-HISTORY:]
    if len(history) != min(len(taken), HISTORY):
        wrong.append(f"{len(history)} samples are kept, not {min(len(taken), HISTORY)}")
    for number, (sample, kept) in enumerate(zip(history, wanted, strict=False)):
        if sample != kept.sample:
            wrong.append(f"sample {number} is not the one that was taken")
        if not kept.before.ended_ns <= sample.time_ns <= kept.after.began_ns:
            wrong.append(f"sample {number} has another time")
        for resource, kind in kept.before.totals_us:
            line = sample.line(Resource(resource), StallKind(kind))
            key = (resource, kind)
            if line is None or not total_is_right(kept.before, line.total_us, kept.after, key):
                wrong.append(f"sample {number}: {kind} {resource} is not what the file said")
    for number, (one, two) in enumerate(itertools.pairwise(history)):
        if abs((two.time_ns - one.time_ns) / 1e9 - INTERVAL_S) > _LATE_S:
            wrong.append(f"samples {number} and {number + 1} are not {INTERVAL_S:g} s apart")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
