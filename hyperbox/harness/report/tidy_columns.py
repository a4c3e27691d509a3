"""What the tables of `hyperbox.results` hold: every column, its unit and its type."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["COMPARED", "MEANINGS", "type_of"]

_CELL = {
    "run": "name of the run directory",
    "kernel": "label of the kernel; ordered from old to new",
    "experiment": "id of the experiment",
    "lane": "how time passed: exact, fast, kvm or host",
}
_UNIT = '"1" for relative changes, else the unit of the metric'

MEANINGS: Mapping[str, Mapping[str, str]] = {
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
    "pairs": {
        **_CELL,
        "metric": "id of the metric",
        "arm": "id of the arm",
        "baseline": "id of the arm that it is compared with: the baseline of a gate, or else the "
        "experiment's first arm",
        "block": "number of the block, from 0; arms of a block share their start",
        "value": "value of the arm, in `unit`",
        "baseline_value": "value of the baseline, in `unit`",
        "difference": "`value` - `baseline_value`, in `unit`",
        "change": "relative change against the baseline (-0.25 = 25 % lower), a fraction; NaN "
        "unless both values are positive",
        "baseline_first": "whether the baseline ran first in the block",
        "unit": "unit of the metric",
        "better": "lower, higher or neither",
    },
    "blocks": {
        **_CELL,
        "gate": "id of the gate that sees the block so",
        "block": "number of the block, from 0",
        "value": "as the gate sees the block: relative change (-0.25 = 25 % lower), difference "
        "or level, in `unit`",
        "unit": _UNIT,
        "baseline_first": "whether the baseline arm ran first; False where there is none",
        "used": "whether the verdict looked at the block",
    },
    "verdicts": {
        **_CELL,
        "gate": "id of the gate",
        "outcome": "PASS, FAIL, INCONCLUSIVE, SKIP, ERROR or UNTESTED",
        "estimate": "location over blocks, in `unit`; NaN if there is none",
        "low": "lower end of the interval, in `unit`; NaN if there is none",
        "high": "upper end of the interval, in `unit`; NaN if there is none",
        "level": "two-sided confidence level of the interval, a fraction; NaN if there is none",
        "n": "blocks that the verdict looked at",
        "limit": "limit of the target, in `unit`; the upper one where there are two",
        "lower_limit": "lower limit of the target, in `unit`; NaN if it has none",
        "upper_limit": "upper limit of the target, in `unit`; NaN if it has none",
        "unit": _UNIT,
        "power": "chance of a verdict on the expected effect; NaN where it is not on record",
        "reason": "why the outcome is what it is",
        "remarks": "remarks, joined by semicolons",
    },
    "details": {
        **_CELL,
        "gate": "id of the gate",
        "name": "name of a number behind the verdict, such as p_met, p_missed, drift, order_effect",
        "value": "the number, in the verdict's unit or a fraction: hyperbox.harness.verdicts.gates "
        "says which",
    },
    "gates": {
        "run": "name of the run directory",
        "gate": "id of the gate",
        "experiment": "id of the experiment",
        "title": "title of the gate",
        "target": "the target in words",
        "rule": "how it is decided: reduces_at_least, non_inferior, within, at_most, at_least or "
        "count",
        "metric": "id of the metric",
        "arm": "id of the arm judged",
        "baseline": "id of the arm that it is compared with; missing for levels and counts",
        "margin": "margin of the rule: a fraction for ratios, else in the metric's unit",
        "band_upper": "upper edge of the target band, a fraction; NaN if there is none",
        "scale": "ratio or difference; how a rule with a baseline compares its arms",
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
    "environment": {
        **_CELL,
        "fact": "what was noted about the machine of the attempt that counts, as outer.inner: "
        "qemu.version, host.cpu, kernel.sha256",
        "text": "its value as text; lists are joined by commas",
    },
    "kernel_configs": {
        "run": "name of the run directory",
        "kernel": "label of the kernel; ordered from old to new",
        "option": "option of the kernel's configuration: CONFIG_PSI",
        "setting": "its setting: y, m, a number or a quoted text; options not set have no row",
    },
}
"""Table -> column -> what the column holds, with its unit."""

COMPARED: Mapping[str, str] = {
    "kernel": "label of the kernel, or both: 6.12 / 7.3",
    "experiment": "id of the experiment",
    "lane": "how time passed: exact, fast, kvm or host",
    "arm": "id of the arm",
    "metric": "id of the metric",
    "unit": "unit of the metric",
    "better": "lower or higher",
    "first_median": "median over the first side's blocks, in `unit`",
    "second_median": "median over the second side's blocks, in `unit`",
    "change": "second against first: relative (-0.25 = 25 % lower), or in `unit`",
    "low": "lower end of the interval of `change`",
    "high": "upper end of the interval of `change`",
    "change_is": "relative or difference",
    "level": "two-sided confidence level of the interval, of this row alone, a fraction",
    "p": "chance of such a difference by luck, corrected for all rows",
    "p_alone": "the same of this row alone",
    "paired": "whether blocks of the same start were compared in pairs",
    "first_blocks": "number of the first side's blocks",
    "second_blocks": "number of the second side's blocks",
    "finding": "first better, second better, the same, not sure or too few blocks",
}
"""Column of a comparison -> what it holds, with its unit."""

_TYPES = {
    "int64": (
        "block", "position", "n", "blocks", "attempts", "attempt", "first_blocks",
        "second_blocks",
    ),
    "float64": (
        "value", "baseline_value", "difference", "change", "estimate", "low", "high", "level",
        "limit", "lower_limit", "upper_limit", "power", "margin", "band_upper", "seconds",
        "first_median", "second_median", "p", "p_alone",
    ),
    "bool": ("baseline_first", "used", "paired"),
    "datetime": ("started",),
    "category": (
        "run", "kernel", "experiment", "lane", "gate", "arm", "baseline", "metric", "unit",
        "better", "outcome", "rule", "scale", "state", "status", "name", "fact", "option",
        "change_is", "finding",
    ),
}  # fmt: skip


def type_of(column: str) -> str:
    """Return the type of a column, the same in every table: int64, float64, bool, ... or str."""
    return next((kind for kind, columns in _TYPES.items() if column in columns), "str")
