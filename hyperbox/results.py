"""Results of a run as tidy pandas tables, for notebooks.

>>> import hyperbox.results
>>> run = hyperbox.results.load("runs/20261125T094602.136Z")  # doctest: +SKIP
>>> run.verdicts[["gate", "kernel", "outcome", "estimate"]]  # doctest: +SKIP

Each table has one row per thing and one column per fact; `COLUMNS` says what each column
holds and in which unit. A cell is told by kernel, experiment and lane in every table, so
that tables join on these.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hyperbox.harness.model import Outcome, Verdict
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.report.matrix import Entry, entries
from hyperbox.harness.runs.loading import load_run

__all__ = ["COLUMNS", "Results", "load"]

_CELL = {
    "run": "name of the run directory",
    "kernel": "label of the kernel",
    "experiment": "id of the experiment",
    "lane": "how time passed: exact, fast, kvm or host",
}

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "samples": {
        **_CELL,
        "block": "number of the block, from 0: one repetition on fresh machines",
        "position": "place of the arm in its block, from 0",
        "arm": "id of the arm",
        "metric": "id of the metric",
        "value": "measured value, in `unit`",
        "unit": "unit of the metric",
        "better": "lower, higher or neither",
    },
    "blocks": {
        **_CELL,
        "gate": "id of the gate that sees the block so",
        "block": "number of the block, from 0",
        "value": "as the gate sees the block: relative change (-0.25 = 25 % lower), difference "
        "or level, in `unit`",
        "unit": '"1" for relative changes, else the unit of the metric',
        "baseline_first": "whether the baseline arm ran first; False where there is none",
        "used": "whether the verdict looked at the block",
    },
    "verdicts": {
        **_CELL,
        "gate": "id of the gate",
        "outcome": "PASS, FAIL, INCONCLUSIVE, SKIP, ERROR or UNTESTED",
        "estimate": "location over blocks, in `unit`; NaN if there is none",
        "low": "lower end of the interval, in `unit`",
        "high": "upper end of the interval, in `unit`",
        "level": "two-sided confidence level of the interval, a fraction",
        "n": "blocks that the verdict looked at",
        "limit": "limit of the target, in `unit`",
        "unit": '"1" for relative changes, else the unit of the metric',
        "power": "chance to tell the target apart, a fraction; NaN where it is not on record",
        "reason": "why the outcome is what it is",
        "remarks": "remarks, joined by semicolons",
    },
    "cells": {
        **_CELL,
        "title": "title of the experiment",
        "state": "how the attempt that counts ended: measured, skipped or failed; "
        "missing if there is none",
        "blocks": "number of blocks measured",
        "attempts": "number of attempts",
        "seconds": "host time of all attempts, s",
        "kernel_release": "release of the kernel, as uname says",
        "kernel_version": "version of the kernel's package",
    },
    "attempts": {
        **_CELL,
        "attempt": "number of the attempt, from 1",
        "status": "measured, skipped or failed",
        "reason": "why it was skipped or failed",
        "fingerprint": "groups kernel crashes; empty if there was none",
        "started": "start, UTC",
        "seconds": "host time, s",
    },
}
"""Table -> column -> what the column holds, with its unit."""


@dataclass(frozen=True)
class Results:
    """The tables of a run. `problems` are sentences about what could not be read."""

    samples: pd.DataFrame
    blocks: pd.DataFrame
    verdicts: pd.DataFrame
    cells: pd.DataFrame
    attempts: pd.DataFrame
    problems: tuple[str, ...] = ()


def load(run: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Results:
    """Read one run directory, or several into the same tables.

    Raises
    ------
    ConfigError
        If a directory is no run directory.
    HarnessError
        If a ``run.json`` is damaged or of a newer hyperbox. A damaged cell gives ERROR
        verdicts and a problem instead.
    """
    paths = [run] if isinstance(run, (str, os.PathLike)) else list(run)
    runs = [load_run(Path(path)) for path in paths]
    return Results(
        samples=_table("samples", (row for one in runs for row in _samples(one))),
        blocks=_table("blocks", (row for one in runs for row in _blocks(one))),
        verdicts=_table("verdicts", (row for one in runs for row in _verdicts(one))),
        cells=_table("cells", (row for one in runs for row in _cells(one))),
        attempts=_table("attempts", (row for one in runs for row in _attempts(one))),
        problems=tuple(problem for one in runs for problem in one.problems),
    )


def _table(name: str, rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    """Give a table with its documented columns, also without rows."""
    table = pd.DataFrame.from_records(list(rows), columns=list(COLUMNS[name]))
    for column in ("run", "kernel", "experiment", "lane", "arm", "metric", "unit", "better"):
        if column in table:
            table[column] = table[column].astype("category")
    if "started" in table:
        table["started"] = pd.to_datetime(table["started"], utc=True, format="ISO8601")
    return table


def _place(run: RunData, cell: CellData) -> tuple[str, ...]:
    return (run.run_id, cell.cell.kernel, cell.cell.experiment, str(cell.cell.lane))


def _samples(run: RunData) -> Iterator[tuple[Any, ...]]:
    for cell in run.cells:
        place = _place(run, cell)
        about = {metric.id: (metric.unit, metric.better) for metric in cell.experiment.metrics}
        for s in cell.samples:
            known = about.get(s.metric, ("", "neither"))
            yield (*place, s.block, s.position, s.arm, s.metric, s.value, *known)


def _blocks(run: RunData) -> Iterator[tuple[Any, ...]]:
    for entry in entries(run):
        used = entry.verdict.n if entry.verdict else 0
        for place, block in enumerate(entry.blocks):
            told = (block.block, block.value, _unit(entry), block.baseline_first, place < used)
            yield (*_entry_place(run, entry), entry.gate.id, *told)


def _verdicts(run: RunData) -> Iterator[tuple[Any, ...]]:
    for entry in entries(run):
        verdict = entry.verdict or Verdict(
            entry.gate.id, entry.kernel, entry.lane, Outcome.SKIP, entry.reason
        )
        yield (
            *_entry_place(run, entry),
            entry.gate.id,
            entry.mark.word,
            *map(_number, (verdict.estimate, verdict.low, verdict.high, verdict.level)),
            verdict.n,
            entry.limit,
            _unit(entry),
            _number(verdict.details.get("power")),
            entry.reason,
            "; ".join(entry.remarks),
        )


def _cells(run: RunData) -> Iterator[tuple[Any, ...]]:
    kernels = {str(kernel.get("label")): kernel for kernel in run.kernels}
    for cell in run.cells:
        statuses = [str(attempt.get("status", "")) for attempt in cell.attempts]
        finished = [status for status in statuses if status != "failed"]
        kernel = kernels.get(cell.cell.kernel, {})
        yield (
            *_place(run, cell),
            cell.experiment.title,
            next(iter([*finished, *statuses[-1:]]), None),
            len({sample.block for sample in cell.samples}),
            len(statuses),
            sum(_number(attempt.get("seconds"), 0.0) for attempt in cell.attempts),
            kernel.get("release", ""),
            kernel.get("version", ""),
        )


def _attempts(run: RunData) -> Iterator[tuple[Any, ...]]:
    for cell in run.cells:
        for attempt in cell.attempts:
            yield (
                *_place(run, cell),
                attempt.get("number"),
                attempt.get("status"),
                attempt.get("reason", ""),
                attempt.get("fingerprint", ""),
                attempt.get("started"),
                _number(attempt.get("seconds")),
            )


def _entry_place(run: RunData, entry: Entry) -> tuple[str, ...]:
    return (run.run_id, entry.kernel, entry.gate.experiment, str(entry.lane))


def _unit(entry: Entry) -> str:
    return "1" if entry.gate.is_ratio else entry.unit


def _number(value: object, missing: float = math.nan) -> float:
    return float(value) if isinstance(value, (int, float)) else missing
