"""The release-validation form: what is to be signed, on paper. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperbox.harness.model import Gate, Outcome
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.marks import MARKS, UNTESTED, Mark
from hyperbox.harness.report.matrix import Entry, columns, entries, headline, release_headline

__all__ = ["GateSummary", "form_context", "gate_summaries"]

_WORST_FIRST = (Outcome.ERROR, Outcome.FAIL, None, Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.SKIP)
_SIGNATORIES = ("Measured by", "Reviewed by", "Released by")


@dataclass(frozen=True)
class GateSummary:
    """A gate over all kernels: its worst outcome, and the kernels of each outcome."""

    gate: Gate
    mark: Mark
    kernels: tuple[tuple[Mark, tuple[str, ...]], ...]
    range_text: str


def form_context(run: RunData) -> Mapping[str, Any]:
    """Give what the form's template shows."""
    matrix = entries(run)
    told = release_headline(run)
    return {
        "run": run,
        "release": told,
        "headline": headline(run),
        "mark": MARKS[told.outcome],
        "kernels": list(dict.fromkeys(column.kernel for column in columns(run))),
        "gates": gate_summaries(matrix),
        "deviations": [e for e in matrix if not e.verdict or e.verdict.outcome is not Outcome.PASS],
        "signatories": _SIGNATORIES,
    }


def gate_summaries(matrix: Sequence[Entry]) -> tuple[GateSummary, ...]:
    """Give each gate with its worst outcome; an untested kernel is worse than an open one."""
    by_gate: dict[str, list[Entry]] = {}
    for entry in matrix:
        by_gate.setdefault(entry.gate.id, []).append(entry)
    return tuple(_summary(rows) for rows in by_gate.values())


def _summary(rows: Sequence[Entry]) -> GateSummary:
    by_outcome: dict[Outcome | None, list[str]] = {}
    for entry in rows:
        outcome = entry.verdict.outcome if entry.verdict else None
        by_outcome.setdefault(outcome, []).append(entry.column.label)
    ordered = [outcome for outcome in _WORST_FIRST if outcome in by_outcome]
    estimates = [e for e in rows if e.verdict and e.verdict.estimate is not None]
    estimates.sort(key=lambda e: (e.verdict.estimate if e.verdict else None) or 0.0)
    texts = list(dict.fromkeys(e.estimate_text for e in (*estimates[:1], *estimates[-1:])))
    return GateSummary(
        rows[0].gate,
        _mark(ordered[0]),
        tuple((_mark(outcome), tuple(by_outcome[outcome])) for outcome in ordered),
        " … ".join(texts),
    )


def _mark(outcome: Outcome | None) -> Mark:
    return MARKS[outcome] if outcome else UNTESTED
