"""The release-validation form: what is to be signed, on paper. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyperbox.harness.model import Gate, Outcome
from hyperbox.harness.report.cells import AttemptRow, attempts, flat
from hyperbox.harness.report.context import chosen_tables
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.matrix import (
    Headline,
    MatrixEntry,
    columns,
    entries,
    headline,
    release_headline,
)
from hyperbox.harness.report.outcome_styles import LANES, OUTCOME_STYLES, OutcomeStyle, style_of

__all__ = ["Form", "GateSummary", "gate_summaries"]

_WORST_FIRST = (Outcome.ERROR, Outcome.FAIL, None, Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.SKIP)
_SIGNATORIES = ("Measured by", "Reviewed by", "Released by")
_MOST_VERDICTS = 300  # a form is read as a whole; verdicts.csv has the rest
_MOST_ROWS = 100


@dataclass(frozen=True)
class GateSummary:
    """A gate over all kernels: its worst outcome, and the kernels of each outcome."""

    gate: Gate
    style: OutcomeStyle
    kernels: tuple[tuple[OutcomeStyle, tuple[str, ...]], ...]
    range_text: str

    @property
    def where(self) -> tuple[str, ...]:
        """One line an outcome: "✓ PASS: 5.10, 6.12"; beyond eight kernels their number."""
        return tuple(
            f"{style.symbol} {style.word}: "
            + (", ".join(names) if len(names) <= 8 else f"{len(names)} kernels")
            for style, names in self.kernels
        )


@dataclass(frozen=True)
class Form:
    """What stands in the form.

    `tables` are the verdicts of each kernel; `deviations` the verdicts that somebody must
    accept before a release; `excluded` the attempts that were skipped, failed or not used.
    Each is cut where it would be too long to be read, and `verdicts_left_out`,
    `deviations_left_out` and `excluded_left_out` count what is missing. `kernels` and
    `machine` are (name, value) rows of what was measured on.
    """

    run: RunData
    release: Headline
    headline: Headline
    gates: tuple[GateSummary, ...]
    tables: tuple[tuple[str, tuple[MatrixEntry, ...]], ...]
    verdicts_left_out: int
    deviations: tuple[MatrixEntry, ...]
    deviations_left_out: int
    excluded: tuple[AttemptRow, ...]
    excluded_left_out: int
    kernels: tuple[Mapping[str, str], ...]
    machine: tuple[tuple[str, str], ...]
    signatories: tuple[str, ...] = _SIGNATORIES

    @classmethod
    def of(cls, run: RunData, matrix: Sequence[MatrixEntry] | None = None) -> Form:
        """Gather the form of a run; `matrix` are its entries if they are at hand."""
        matrix = entries(run) if matrix is None else matrix
        deviations = [e for e in matrix if not e.verdict or e.verdict.outcome is not Outcome.PASS]
        excluded = [one for one in attempts(run) if one.status != "measured" or one.excluded]
        tables = chosen_tables(run, matrix, _MOST_VERDICTS)
        return cls(
            run=run,
            release=release_headline(run),
            headline=headline(run),
            gates=gate_summaries(matrix),
            tables=tuple((label, tuple(rows)) for label, rows in tables),
            verdicts_left_out=max(0, len(matrix) - _MOST_VERDICTS),
            deviations=tuple(deviations[:_MOST_ROWS]),
            deviations_left_out=max(0, len(deviations) - _MOST_ROWS),
            excluded=tuple(excluded[:_MOST_ROWS]),
            excluded_left_out=max(0, len(excluded) - _MOST_ROWS),
            kernels=tuple(flat(record) for record in run.kernels[:_MOST_ROWS]),
            machine=tuple((name, _joined(value)) for name, value in run.environment.items()),
        )

    @property
    def style(self) -> OutcomeStyle:
        """The look of the verdict on the release."""
        return OUTCOME_STYLES[self.release.outcome]

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """What identifies the run, as (name, value)."""
        run = self.run
        kernels = list(dict.fromkeys(column.kernel for column in columns(run)))
        listed = ", ".join(kernels) if len(kernels) <= 12 else f"{len(kernels)} kernels"
        return (
            ("Run", run.run_id),
            ("Created", run.created),
            ("hyperbox", run.hyperbox_version),
            ("Seed", str(run.seed)),
            ("Kernels", listed or "none"),
            ("Lane", f"{run.lane}: {LANES[run.lane]}"),
        )


def gate_summaries(matrix: Sequence[MatrixEntry]) -> tuple[GateSummary, ...]:
    """Return each gate with its worst outcome; an untested kernel is worse than an open one."""
    by_gate: dict[str, list[MatrixEntry]] = {}
    for entry in matrix:
        by_gate.setdefault(entry.gate.id, []).append(entry)
    return tuple(_summary(rows) for rows in by_gate.values())


def _summary(rows: Sequence[MatrixEntry]) -> GateSummary:
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
        style_of(ordered[0]),
        tuple((style_of(outcome), tuple(by_outcome[outcome])) for outcome in ordered),
        " … ".join(texts),
    )


def _joined(value: object) -> str:
    """Return a fact as one text, nested ones as "name: value; name: value"."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {fact}" for name, fact in flat(value).items())
    return flat({"": value})[""]
