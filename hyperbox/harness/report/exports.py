"""The verdicts for programs: JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.matrix import Entry, entries, headline, release_headline
from hyperbox.harness.verdicts.release import release
from hyperbox.harness.verdicts.wording import legible

__all__ = ["CSV_COLUMNS", "summary", "verdicts_csv"]

CSV_COLUMNS = (
    "run",
    "kernel",
    "gate",
    "lane",
    "outcome",
    "n",
    "estimate",
    "low",
    "high",
    "level",
    "limit",
    "rule",
    "metric",
    "unit",
    "p_met",
    "p_missed",
    "power",
    "reason",
    "remarks",
)
"""Ratio rules state `estimate`, `low`, `high` and `limit` as fractions (-0.25 = 25 %
lower, `unit` "1"); level rules in the metric's unit. `p_met` and `p_missed` are exact
one-sided p-values of "the target is met" and "is missed"."""


def summary(run: RunData) -> dict[str, Any]:
    """Give the run as JSON-ready values (no NaN, no infinity)."""
    told = headline(run)
    return {
        "schema": 1,
        "run": run.run_id,
        "created": run.created,
        "hyperbox": run.hyperbox_version,
        "lane": str(run.lane),
        "seed": run.seed,
        "outcome": str(told.outcome),
        "headline": legible(told.text),
        "release": _release(run),
        "exit_code": int(told.code),
        "reproduce": run.reproduce,
        "problems": [legible(problem) for problem in run.problems],
        "verdicts": [
            {**_record(entry, run), "remarks": [legible(remark) for remark in entry.remarks]}
            for entry in entries(run)
        ],
    }


def verdicts_csv(run: RunData) -> str:
    """Give one line per gate and kernel, with `CSV_COLUMNS` as header."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_record(entry, run) for entry in entries(run))
    return stream.getvalue()


def _release(run: RunData) -> dict[str, Any]:
    """Give the verdict on a release, and the cells whose failure is proven for all together."""
    told = release_headline(run)
    failing = [
        {"gate": one.gate, "kernel": legible(one.kernel), "lane": one.lane, "p": one.adjusted_p}
        for one in release(run.deciding).failing
    ]
    return {"outcome": str(told.outcome), "text": legible(told.text), "failing": failing}


def _record(entry: Entry, run: RunData) -> dict[str, Any]:
    verdict = entry.verdict
    details = verdict.details if verdict else {}
    return {
        "run": run.run_id,
        "kernel": legible(entry.kernel),
        "gate": entry.gate.id,
        "lane": str(entry.lane),
        "outcome": entry.mark.word,
        "n": verdict.n if verdict else 0,
        "estimate": _finite(verdict.estimate if verdict else None),
        "low": _finite(verdict.low if verdict else None),
        "high": _finite(verdict.high if verdict else None),
        "level": _finite(verdict.level if verdict else None),
        "limit": _finite(entry.limit),
        "rule": str(entry.gate.rule),
        "metric": entry.gate.metric,
        "unit": "1" if entry.gate.is_ratio else entry.unit,
        "p_met": _finite(details.get("p_met")),
        "p_missed": _finite(details.get("p_missed")),
        "power": _finite(details.get("power")),
        "reason": legible(entry.reason),
        "remarks": legible("; ".join(entry.remarks)),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
