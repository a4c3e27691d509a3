"""The verdicts for programs: JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.matrix import MatrixEntry, entries, headline, release_headline
from hyperbox.harness.verdicts.release import release
from hyperbox.printing import legible

__all__ = ["CSV_COLUMNS", "UNREADABLE", "summary", "verdicts_csv", "verdicts_document"]

CSV_COLUMNS = (
    "run",
    "kernel",
    "release",
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
    "stand_in",
)
"""Ratio rules state `estimate`, `low`, `high` and `limit` as fractions (-0.25 = 25 %
lower, `unit` "1"); level rules in the metric's unit. `p_met` and `p_missed` are exact
one-sided p-values of "the target is met" and "is missed". An empty number is none.

Spreadsheets and pandas take the kernel 5.10 for the number 5.1: read `kernel` as text, or use
`release`. Text that a spreadsheet would take for a formula begins with an apostrophe. A line
without a gate, with the outcome `UNREADABLE`, names what was left out of the run."""

UNREADABLE = "UNREADABLE"
"""Outcome of the lines of the CSV that name damage."""

_FORMULA = tuple("=+-@\t")


def summary(run: RunData) -> dict[str, Any]:
    """Return the run as JSON-ready values (no NaN, no infinity)."""
    found = headline(run)
    return {
        "schema": 1,
        "run": run.run_id,
        "created": legible(run.created),
        "hyperbox": legible(run.hyperbox_version),
        "lane": str(run.lane),
        "seed": run.seed,
        "outcome": str(found.outcome),
        "headline": legible(found.text),
        "release": _release(run),
        "exit_code": int(found.code),
        "reproduce": legible(run.reproduce),
        "problems": [legible(problem) for problem in run.problems],
        "verdicts": [
            {**_record(entry, run), "remarks": [legible(remark) for remark in entry.remarks]}
            for entry in entries(run)
        ],
    }


def verdicts_csv(run: RunData) -> str:
    """Return one line per gate and kernel, with `CSV_COLUMNS` as header, and one per damage."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    releases = {str(found.get("label")): str(found.get("release", "")) for found in run.kernels}
    for entry in entries(run):
        record = {**_record(entry, run), "release": releases.get(entry.kernel, "")}
        writer.writerow({key: _cell(value) for key, value in record.items()})
    for problem in run.problems:
        record = {"run": run.run_id, "outcome": UNREADABLE, "reason": problem}
        writer.writerow({key: _cell(value) for key, value in record.items()})
    return stream.getvalue()


def verdicts_document(run: RunData, code: int, pages: Sequence[Path]) -> dict[str, Any]:
    """Return verdicts, exit code and the report's files as JSON-ready values, for ``--json``."""
    return {
        "schema": 1,
        "run": run.run_id,
        "directory": legible(str(run.directory)),
        "exit_code": int(code),
        "problems": [legible(problem) for problem in run.problems],
        "verdicts": [_plain(asdict(verdict)) for verdict in run.verdicts],
        "report": [legible(str(page)) for page in pages],
    }


def _plain(value: Any) -> Any:
    """Return plain data: no number that JSON does not have, no text that is not Unicode."""
    if isinstance(value, str):
        return legible(value)
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _cell(value: object) -> object:
    """Return a value of the CSV: text in one line, and never a formula."""
    if not isinstance(value, str):
        return value
    text = " ".join(legible(value).split())
    return f"'{text}" if text.startswith(_FORMULA) else text


def _release(run: RunData) -> dict[str, Any]:
    """Return the verdict on a release, and the cells whose failure is proven for all together."""
    found = release_headline(run)
    failing = [
        {
            "gate": legible(one.gate),
            "kernel": legible(one.kernel),
            "lane": one.lane,
            "p": one.adjusted_p,
        }
        for one in release(run.deciding).failing
    ]
    return {"outcome": str(found.outcome), "text": legible(found.text), "failing": failing}


def _record(entry: MatrixEntry, run: RunData) -> dict[str, Any]:
    verdict = entry.verdict
    details = verdict.details if verdict else {}
    return {
        "run": run.run_id,
        "kernel": legible(entry.kernel),
        "gate": legible(entry.gate.id),
        "lane": str(entry.lane),
        "outcome": entry.style.word,
        "n": verdict.n if verdict else 0,
        "estimate": _finite(verdict.estimate if verdict else None),
        "low": _finite(verdict.low if verdict else None),
        "high": _finite(verdict.high if verdict else None),
        "level": _finite(verdict.level if verdict else None),
        "limit": _finite(entry.limit),
        "rule": str(entry.gate.rule),
        "metric": legible(entry.gate.metric),
        "unit": "1" if entry.gate.is_ratio else legible(entry.unit),
        "p_met": _finite(details.get("p_met")),
        "p_missed": _finite(details.get("p_missed")),
        "power": _finite(details.get("power")),
        "reason": legible(entry.reason),
        "remarks": legible("; ".join(entry.remarks)),
        "stand_in": legible(verdict.stand_in) if verdict else "",
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
