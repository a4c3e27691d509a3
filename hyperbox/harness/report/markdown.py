"""The report as Markdown: for job summaries, issues and mail. Tables, no figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hyperbox.harness.report.cells import attempts, flat, metric_rows
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.report.matrix import (
    MatrixEntry,
    by_gate,
    columns,
    entries,
    headline,
    not_passed,
    release_headline,
)
from hyperbox.harness.report.outcome_styles import LANES, OUTCOME_STYLES
from hyperbox.printing import legible

__all__ = ["code_block", "markdown", "plain"]

# Backslash, code, emphasis (not within words), links, strike-through, borders of cells.
_MARKUP = re.compile(r"[\\`*\[\]~|$]|#(?=#*$)|(?<![^\W_])_|_(?![^\W_])")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_LEADING = re.compile(r"^(\d*)([#>+=.)-])")
_MOST_CELLS = 60
_MOST_ATTEMPTS = 600
_MOST_OPEN = 100
_LABELLED_TILES = 12  # columns of the matrix; beyond, a cell holds its symbol only


def markdown(run: RunData) -> str:
    """Return the run as GitHub-flavoured Markdown, in the order of the HTML page."""
    found, matrix = headline(run), entries(run)
    tried = attempts(run)
    shown = tried if len(tried) <= _MOST_ATTEMPTS else [a for a in tried if not a.plain]
    parts = [
        f"# {OUTCOME_STYLES[found.outcome].symbol} {plain(found.text)}",
        f"**{plain(release_headline(run).text)}**",
        f"Run {_code(run.run_id)}, {plain(run.created)}, hyperbox {plain(run.hyperbox_version)}, "
        f"seed {run.seed}, **{run.lane}** lane: {LANES[run.lane]}",
        "## Gates and kernels",
        *_grid(matrix),
        "## What did not pass",
        *_open(matrix),
        *_problems(run),
        "## Verdicts",
        *_verdicts(run, matrix),
        "## Measurements",
        *(part for cell in run.cells[:_MOST_CELLS] for part in _cell(run, cell, matrix)),
        *_left_out(len(run.cells) - _MOST_CELLS, "cells"),
        "## Attempts",
        _table(
            (
                "cell",
                "attempt",
                "status",
                "reason",
                "started",
                "seconds",
                "retries",
                "use",
                "other",
            ),
            (
                (
                    a.cell,
                    a.number,
                    a.status,
                    a.reason,
                    a.started,
                    a.seconds,
                    a.retries,
                    a.used,
                    a.other,
                )
                for a in shown
            ),
        ),
        *_left_out(len(tried) - len(shown), "attempts, measured at once,"),
        "## Environment",
        _table(("kernel record", "value"), _kernel_facts(run)),
        _table(("machine", "value"), flat(run.environment).items()),
        "## Reproduce",
        code_block(run.reproduce),
    ]
    return "\n\n".join(parts) + "\n"


def _left_out(count: int, what: str) -> Iterable[str]:
    if count > 0:
        yield f"{count} further {what} are in the HTML report."


def _problems(run: RunData) -> Iterable[str]:
    if run.problems:
        yield "## What could not be read"
        yield "\n".join(f"- {_line(problem)}" for problem in run.problems)


def _grid(matrix: Sequence[MatrixEntry]) -> Iterable[str]:
    labels = list(dict.fromkeys(entry.column.label for entry in matrix))
    if not labels:
        yield "There is nothing to pass: no gate, or no kernel."
        return
    wide = len(labels) > _LABELLED_TILES
    yield _table(
        ("gate", *labels),
        (
            (gate.id, *("" if e is None else e.style.symbol if wide else e.short_text for e in row))
            for gate, row in by_gate(matrix)
        ),
    )


def _open(matrix: Sequence[MatrixEntry]) -> Iterable[str]:
    found = not_passed(matrix)
    if not found:
        yield "Nothing: every gate passed on every kernel." if matrix else "Nothing was planned."
        return
    yield _table(
        ("verdict", "gate", "kernel", "estimate", "interval", "limit", "reason"),
        (
            (
                f"{e.style.symbol} {e.style.word}",
                e.gate.id,
                e.column.label,
                e.estimate_text,
                e.interval_text,
                e.limit_text,
                e.reason,
            )
            for e in found[:_MOST_OPEN]
        ),
    )
    yield from _left_out(len(found) - _MOST_OPEN, "verdicts")


def _verdicts(run: RunData, matrix: Sequence[MatrixEntry]) -> Iterable[str]:
    tables: dict[str, list[MatrixEntry]] = {column.label: [] for column in columns(run)}
    for entry in matrix:
        tables[entry.column.label].append(entry)
    for label, rows in tables.items():
        yield f"### Kernel {plain(label)}"
        yield _table(
            ("gate", "target", "estimate", "interval", "n", "power", "verdict", "reason, remarks"),
            map(_verdict, rows),
        )


def _verdict(entry: MatrixEntry) -> Sequence[str]:
    return (
        entry.gate.id,
        f"{entry.gate.target} (limit {entry.limit_text})",
        entry.estimate_text,
        entry.interval_text,
        str(entry.verdict.n) if entry.verdict else "",
        entry.power_text,
        f"{entry.style.symbol} {entry.style.word}",
        "; ".join((entry.reason, *entry.summary_remarks)),
    )


def _cell(run: RunData, cell: CellData, matrix: Sequence[MatrixEntry]) -> Iterable[str]:
    yield f"### {plain(cell.experiment.title)} on {plain(cell.where)}"
    arms = [arm.id for arm in cell.experiment.arms]
    yield _table(
        ("metric", "unit", *arms, *(f"change {arm}" for arm in arms[1:]), "gates"),
        (
            (r.metric.title, r.metric.unit, *r.arms, *r.changes, ", ".join(r.gates))
            for r in metric_rows(run, cell)
        ),
    )
    remarked = [e for e in matrix if e.cell is cell and e.remarks]
    if remarked:
        yield _table(("gate", "remarks"), ((e.gate.id, "; ".join(e.remarks)) for e in remarked))


def _kernel_facts(run: RunData) -> Iterable[Sequence[str]]:
    for record in run.kernels:
        label = str(record.get("label", "?"))
        for key, value in flat(record).items():
            if key != "label" and value:
                yield (f"{label} {key}", value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(head), _row(["---"] * len(head)), *(_row(_cells(row)) for row in rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Sequence[str]) -> Iterable[str]:
    return (plain(cell) for cell in row)


def plain(text: str) -> str:
    """Return measured text as one line of Markdown that renders as it reads, never as markup."""
    line = " ".join(legible(text).split())
    line = _MARKUP.sub(r"\\\g<0>", _ENTITY.sub("&amp;", line))
    return line.replace("<", "&lt;")


def _line(text: str) -> str:
    """Return text that stands first in its line: no heading, no list, no quotation."""
    return _LEADING.sub(lambda found: f"{found[1]}\\{found[2]}", plain(text))


def _code(text: str) -> str:
    """Return text as a code span, whatever backticks are in it."""
    line = " ".join(legible(text).split())
    fence = "`" * (_longest_run(line) + 1)
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def code_block(command: str) -> str:
    """Return a command as a code block, whatever backticks are in it."""
    fence = "`" * max(3, _longest_run(command) + 1)
    return f"{fence}sh\n{legible(command)}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
