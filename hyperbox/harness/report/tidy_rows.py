"""The rows of the tables of `hyperbox.results`, from runs as they are read. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from hyperbox.harness.model import Outcome, Sample, Verdict
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.report.matrix import MatrixEntry, entries

__all__ = ["ROWS"]

Rows = Iterator[tuple[Any, ...]]


def _place(run: RunData, cell: CellData) -> tuple[str, ...]:
    return (run.run_id, cell.cell.kernel, cell.cell.experiment, str(cell.cell.lane))


def _entry_place(run: RunData, entry: MatrixEntry) -> tuple[str, ...]:
    return (run.run_id, entry.kernel, entry.gate.experiment, str(entry.lane))


def _about(cell: CellData) -> dict[str, tuple[str, str]]:
    return {metric.id: (metric.unit, metric.better) for metric in cell.experiment.metrics}


def _samples(run: RunData) -> Rows:
    for cell in run.cells:
        place, about = _place(run, cell), _about(cell)
        for s in cell.samples:
            known = about.get(s.metric, ("", "neither"))
            yield (*place, s.block, s.position, s.arm, s.metric, s.value, *known)


def _pairs(run: RunData) -> Rows:
    for cell in run.cells:
        baselines = _baselines(run, cell)
        place, about = _place(run, cell), _about(cell)
        found = {(s.metric, s.arm, s.block): s for s in cell.samples}
        for (metric, arm, block), sample in found.items():
            for baseline in baselines.get(arm, ()):
                other = found.get((metric, baseline, block))
                if other is not None:
                    known = about.get(metric, ("", "neither"))
                    yield (*place, metric, arm, baseline, block, *_pair(sample, other), *known)


def _baselines(run: RunData, cell: CellData) -> dict[str, list[str]]:
    """Return arm -> arms that it is compared with: by the gates, else the first."""
    found: dict[str, list[str]] = {}
    for gate in run.gates:
        known = found.setdefault(gate.arm, [])
        if gate.experiment == cell.experiment.id and gate.baseline not in (None, *known):
            known.append(str(gate.baseline))
    arms = [arm.id for arm in cell.experiment.arms]
    for arm in arms[1:]:
        if not found.get(arm) and arm not in found.get(arms[0], ()):
            found[arm] = [arms[0]]
    return found


def _pair(sample: Sample, baseline: Sample) -> tuple[float, float, float, float, bool]:
    value, base = sample.value, baseline.value
    change = value / base - 1 if value > 0 and base > 0 else math.nan
    return (value, base, value - base, change, baseline.position < sample.position)


def _blocks(run: RunData) -> Rows:
    for entry in entries(run):
        used = entry.verdict.n if entry.verdict else 0
        for place, block in enumerate(entry.blocks):
            values = (block.block, block.value, _unit(entry), block.baseline_first, place < used)
            yield (*_entry_place(run, entry), entry.gate.id, *values)


def _verdicts(run: RunData) -> Rows:
    for entry in entries(run):
        verdict = entry.verdict or Verdict(
            entry.gate.id, entry.kernel, entry.lane, Outcome.SKIP, entry.reason
        )
        yield (
            *_entry_place(run, entry),
            entry.gate.id,
            entry.style.word,
            *map(_number, (verdict.estimate, verdict.low, verdict.high, verdict.level)),
            verdict.n,
            entry.limit,
            *map(_number, entry.limits),
            _unit(entry),
            _number(verdict.details.get("power")),
            entry.reason,
            "; ".join(entry.remarks),
        )


def _details(run: RunData) -> Rows:
    for entry in entries(run):
        for name, value in entry.verdict.details.items() if entry.verdict else ():
            yield (*_entry_place(run, entry), entry.gate.id, name, value)


def _gates(run: RunData) -> Rows:
    for gate in run.gates:
        yield (
            run.run_id,
            gate.id,
            gate.experiment,
            gate.title,
            gate.target,
            str(gate.rule),
            gate.metric,
            gate.arm,
            gate.baseline,
            gate.margin,
            _number(gate.band_upper),
            str(gate.scale),
        )


def _cells(run: RunData) -> Rows:
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


def _attempts(run: RunData) -> Rows:
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


def _environment(run: RunData) -> Rows:
    for cell in run.cells:
        for fact, text in _facts(cell.environment):
            yield (*_place(run, cell), fact, text)


def _facts(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _facts(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{key}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{key}", "" if value is None else str(value)


def _kernel_configs(run: RunData) -> Rows:
    for kernel, options in run.kernel_configs.items():
        for option, setting in options.items():
            yield (run.run_id, kernel, option, setting)


def _unit(entry: MatrixEntry) -> str:
    return "1" if entry.gate.is_ratio else entry.unit


def _number(value: object, missing: float = math.nan) -> float:
    return float(value) if isinstance(value, (int, float)) else missing


ROWS = {
    "samples": _samples,
    "pairs": _pairs,
    "blocks": _blocks,
    "verdicts": _verdicts,
    "details": _details,
    "gates": _gates,
    "cells": _cells,
    "attempts": _attempts,
    "environment": _environment,
    "kernel_configs": _kernel_configs,
}
"""Table -> what gives its rows, with the columns of `tidy_columns.MEANINGS`."""
