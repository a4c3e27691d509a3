"""The run for kcidb, the Linux kernel's common test database (schema 5). Pure.

A kernel of the run is a checkout with one build (a distribution's package, tested as it
is); a gate on it is a test. INCONCLUSIVE is DONE: a measurement without a word on the code.
What could not be read stands in every checkout.
Follows the schema of kcidb-io, which allows no nulls.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from hyperbox.harness.model import Outcome
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.matrix import MatrixEntry, columns, entries
from hyperbox.printing import legible

__all__ = ["ORIGIN", "kcidb"]

_LOG_CHARACTERS = 16_384  # the schema's limit of an excerpt

ORIGIN = "hyperbox"
"""Name of the submitting system: the prefix of every id."""

_STATUS = {
    Outcome.PASS: "PASS",
    Outcome.FAIL: "FAIL",
    Outcome.INCONCLUSIVE: "DONE",
    Outcome.SKIP: "SKIP",
    Outcome.ERROR: "ERROR",
}


def kcidb(run: RunData) -> dict[str, Any]:
    """Return the run as a kcidb submission."""
    records = {str(record.get("label", "?")): record for record in run.kernels}
    kernels = list(dict.fromkeys(column.kernel for column in columns(run)))
    return {
        "version": {"major": 5, "minor": 3},
        "checkouts": [_checkout(run, kernel, records.get(kernel, {})) for kernel in kernels],
        "builds": [_build(run, kernel, records.get(kernel, {})) for kernel in kernels],
        "tests": [_test(run, entry) for entry in entries(run)],
    }


def _checkout(run: RunData, kernel: str, record: Mapping[str, object]) -> dict[str, Any]:
    return {
        "id": _id(run, kernel),
        "origin": ORIGIN,
        "comment": _plain(f"Linux {record.get('release') or kernel} {record.get('version', '')}"),
        "start_time": run.created,
        "valid": True,
        "misc": {
            "label": _plain(kernel),
            **({"unreadable": [_plain(text) for text in run.problems]} if run.problems else {}),
        },
    }


def _build(run: RunData, kernel: str, record: Mapping[str, object]) -> dict[str, Any]:
    known = {key: _plain(str(value)) for key, value in record.items() if isinstance(value, str)}
    return {
        "id": _id(run, kernel),
        "checkout_id": _id(run, kernel),
        "origin": ORIGIN,
        "comment": _plain(str(record.get("package") or record.get("release") or kernel)),
        "status": "PASS",
        "misc": known,
    }


def _test(run: RunData, entry: MatrixEntry) -> dict[str, Any]:
    verdict = entry.verdict
    document: dict[str, Any] = {
        "id": _id(run, entry.kernel, entry.lane, entry.gate.id),
        "build_id": _id(run, entry.kernel),
        "origin": ORIGIN,
        "path": "hyperbox." + re.sub(r"[^A-Za-z0-9_.-]+|(?<=\.)\.|\.$", "_", entry.gate.id),
        "comment": _plain(f"{entry.gate.title}: {entry.gate.target}"),
        "status": _STATUS[verdict.outcome] if verdict else "MISS",
        "start_time": run.created,
        "environment": {"comment": f"{entry.lane} lane", "misc": {"lane": str(entry.lane)}},
        "log_excerpt": _excerpt("\n".join((entry.reason, *entry.remarks))),
        "misc": _evidence(run, entry),
    }
    estimate = verdict.estimate if verdict else None
    if estimate is not None and math.isfinite(estimate):
        # A relative change is a plain number; units "1" and "" are none.
        unit = "" if entry.gate.is_ratio or entry.unit == "1" else _plain(entry.unit)
        document["number"] = {"value": estimate, **({"unit": unit} if unit else {})}
    return document


def _evidence(run: RunData, entry: MatrixEntry) -> dict[str, Any]:
    verdict = entry.verdict
    numbers = {
        "low": verdict.low if verdict else None,
        "high": verdict.high if verdict else None,
        "level": verdict.level if verdict else None,
        "limit": entry.limit,
    }
    known = {key: value for key, value in numbers.items() if value is not None}
    return {
        "run": _plain(run.run_id),
        "outcome": entry.style.word,
        "rule": str(entry.gate.rule),
        "blocks": verdict.n if verdict else 0,
        **{key: value for key, value in known.items() if math.isfinite(value)},
    }


def _id(run: RunData, *parts: str) -> str:
    return ":".join([ORIGIN, *(_plain(part) for part in (run.run_id, *parts))])


def _excerpt(text: str) -> str:
    """Return the beginning of a text that is too long; it begins with what happened."""
    text = _plain(text)
    return (
        text
        if len(text) <= _LOG_CHARACTERS
        else text[: _LOG_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )


def _plain(text: str) -> str:
    return legible(text)
