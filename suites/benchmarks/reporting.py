"""What a large run costs: reading, deciding and reporting ten thousand cells."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hyperbox.errors import HarnessError
from hyperbox.harness.model import Arm, Cell, Experiment, Gate, Lane, Metric, Rule, Sample, Suite
from hyperbox.harness.runs.attempt import Attempt, AttemptState, BlockRecord
from hyperbox.harness.runs.documents import document_bytes
from hyperbox.harness.runs.plan import blocks_of, make_plan
from hyperbox.harness.runs.record import record_document, samples_table
from hyperbox.harness.runs.store import RunStore
from hyperbox.processes import run

_SEED = 1
_BLOCKS = 32
_EFFECTS = (0.85, 0.93, 0.95, 0.97)
_REPORT = """
import resource, sys
from pathlib import Path
from hyperbox.harness.report.page import write_report
from hyperbox.harness.runs.loading import load_run
write_report(load_run(Path(sys.argv[1])), Path(sys.argv[1]) / "report")
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def write_run(directory: Path, kernels: int, experiments: int) -> None:
    """Write a run directory of kernels x experiments measured cells with 32 blocks each.

    Blocks have two arms and two metrics; a quarter of the gates lies on its limit.
    """
    suite = _suite(experiments)
    labels = [f"{5 + place // 20}.{place % 20}" for place in range(kernels)]
    plan = make_plan([suite], kernels=labels, lane=Lane.EXACT, seed=_SEED)
    asked = {"names": [], "kernels": labels, "modules": None, "blocks": None}
    store = RunStore.create(
        directory,
        plan,
        target="vm",
        asked={**asked, "allow_host_changes": False, "suites": None},
        versions={"hyperbox": "0"},
        environment={},
    )
    dice = np.random.default_rng(_SEED)
    for cell in plan.cells():
        _write_cell(directory, cell, plan.experiment(cell.experiment), dice)
    store.set_status("complete")


def _suite(experiments: int) -> Suite:
    arms = (Arm("off", "Off"), Arm("on", "On"))
    metrics = (Metric("time", "Time", "us"), Metric("rate", "Requests", "1/s", "higher"))
    names = [f"{place:03d}" for place in range(experiments)]
    return Suite(
        "bench",
        "A large run",
        tuple(
            Experiment(
                f"bench.e{n}", "bench", f"Load {n}", arms, metrics, ("true",), blocks=_BLOCKS
            )
            for n in names
        ),
        tuple(
            Gate(
                f"bench.g{n}",
                f"Load {n} takes less time",
                "5-15 % less time",
                f"bench.e{n}",
                "time",
                Rule.REDUCES_AT_LEAST,
                0.05,
                "on",
                "off",
                band_upper=0.15,
            )
            for n in names
        ),
    )


def _write_cell(
    directory: Path, cell: Cell, experiment: Experiment, dice: np.random.Generator
) -> None:
    """Write one attempt as the store does, without its flushes: there are too many."""
    effect = float(dice.choice(_EFFECTS))
    blocks = list(blocks_of(cell, experiment, _SEED))
    samples: list[Sample] = []
    for block in blocks:
        level = 1000 * float(np.exp(dice.normal(0, 0.02)))
        for place, arm in enumerate(block.order):
            value = level * float(np.exp(dice.normal(0, 0.01))) * (effect if arm == "on" else 1)
            samples.append(Sample(block.number, place, arm, "time", value))
            samples.append(Sample(block.number, place, arm, "rate", 1e6 / value))
    records = (BlockRecord(b.number, b.order, b.start, {"off": 1.0, "on": 1.1}, {}) for b in blocks)
    kernel = {"label": cell.kernel, "release": cell.kernel, "version": "1", "sha256": "0" * 64}
    attempt = Attempt(
        AttemptState.MEASURED,
        1e9,
        1e9 + 60,
        tuple(samples),
        tuple(records),
        {"kernel": {**kernel, "remarks": []}},
    )
    table = samples_table(attempt.samples, experiment)
    home = directory / "cells" / cell.key / "attempt-1"
    home.mkdir(parents=True)
    document = record_document(cell, attempt, 1, table)
    (home / "record.json").write_bytes(document_bytes(document))
    (home / "samples.parquet").write_bytes(table)


_COMPARE = """
import resource, sys
from pathlib import Path
from hyperbox.harness.report.comparison import compare
from hyperbox.harness.report.comparison_views import comparison_page
from hyperbox.harness.runs.loading import load_run
comparison_page(compare(load_run(Path(sys.argv[1])), kernels=("5.0", "5.1")))
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""
_TABLES = """
import resource, sys
import hyperbox.results
run = hyperbox.results.load(sys.argv[1])
rows = [len(getattr(run, name)) for name in hyperbox.results.COLUMNS]
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""
_PROGRAMS = {"report": _REPORT, "compare": _COMPARE, "tables": _TABLES}


Costs = dict[int, dict[str, tuple[float, float, float]]]
"""Cells -> program -> wall-clock seconds, CPU seconds and peak MiB."""


def _measured(cells: int) -> dict[str, tuple[float, float, float]]:
    """Return what each program takes of one run, in a process of its own."""
    side = round(cells**0.5)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "run"
        write_run(directory, side, cells // side)
        return {name: _cost(program, directory) for name, program in _PROGRAMS.items()}


def _cost(program: str, directory: Path) -> tuple[float, float, float]:
    before = time.monotonic()
    done = run([sys.executable, "-c", program, str(directory)], timeout=900, check=False)
    seconds = time.monotonic() - before
    if done.status != 0:
        raise HarnessError(f"no result: {done.stderr.decode(errors='replace')[-500:]}")
    cpu_seconds, peak = map(float, done.stdout.split()[-2:])
    return seconds, cpu_seconds, peak


class LargeRun:
    """A run of 100 kernels x 100 experiments with 32 blocks each: report, comparison, tables."""

    timeout = 1800
    params = ((100, 10_000), tuple(_PROGRAMS))
    param_names = ("cells", "what")

    def setup_cache(self) -> Costs:
        """Write and measure each run once, for all numbers that are asked."""
        return {cells: _measured(cells) for cells in self.params[0]}

    setup_cache.timeout = 1800  # type: ignore[attr-defined]

    def track_seconds(self, costs: Costs, cells: int, what: str) -> float:
        """Wall-clock seconds from the directory to the end; the report's target is below 60."""
        return costs[cells][what][0]

    def track_cpu_seconds(self, costs: Costs, cells: int, what: str) -> float:
        """CPU seconds of the same, which a busy machine changes less."""
        return costs[cells][what][1]

    def track_peak_memory(self, costs: Costs, cells: int, what: str) -> float:
        """Peak resident MiB of the process; the target is below 1024."""
        return costs[cells][what][2]
