"""Verdicts on the terminal, as rich tables: a wide one, and one for 80 columns and pipes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.matrix import MatrixEntry, entries, headline
from hyperbox.harness.report.outcome_styles import OUTCOME_STYLES
from hyperbox.harness.verdicts.wording import EXCEEDS_BAND
from hyperbox.printing import legible

__all__ = ["headline_text", "verdict_table"]

_WIDE = 120
_MOST_ROWS = 200


def headline_text(run: RunData) -> Text:
    """Return the run's verdict sentence with its symbol."""
    found = headline(run)
    style = OUTCOME_STYLES[found.outcome]
    return Text(legible(f"{style.symbol} {found.text}"), style=style.terminal)


def verdict_table(run: RunData, width: int = _WIDE) -> RenderableType:
    """Return one row per gate and kernel: target, estimate, interval, blocks, verdict.

    Reasons stand beside the verdict where a reader needs them, for everything but PASS.
    Below 120 columns targets are left out and reasons follow the table. Of a large run
    only the rows that are not PASS are shown.
    """
    matrix = entries(run)
    shown = matrix
    if len(matrix) > _MOST_ROWS:
        shown = tuple(e for e in matrix if e.style.word != "PASS")[:_MOST_ROWS]
    lanes = ", ".join(dict.fromkeys(entry.lane for entry in matrix)) or run.lane
    title = f"hyperbox validate · {lanes} lane"
    parts: list[RenderableType] = []
    if width >= _WIDE:
        parts.append(_wide(title, shown))
    else:
        parts += [_compact(title, shown), *_reasons(shown)]
    if len(shown) < len(matrix):
        parts.append(Text(f"{len(matrix) - len(shown)} more rows are in the report", style="dim"))
    return Group(*parts)


def _wide(title: str, matrix: Sequence[MatrixEntry]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("Kernel", no_wrap=True)
    table.add_column("Gate", no_wrap=True)
    table.add_column("Target")
    table.add_column("Estimate (interval)", justify="right")
    table.add_column("n", justify="right")
    table.add_column("Verdict")
    previous = None
    for entry in matrix:
        if previous is not None and entry.column != previous:
            table.add_section()
        table.add_row(
            "" if entry.column == previous else _label(entry),
            Text(entry.gate.id),
            Text(entry.gate.target),
            Text(_found(entry)),
            _blocks(entry),
            _verdict_text(entry),
        )
        previous = entry.column
    return table


def _compact(title: str, matrix: Sequence[MatrixEntry]) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("Gate", overflow="fold")
    table.add_column("Estimate (interval)", justify="right", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("Verdict", no_wrap=True)
    previous = None
    for entry in matrix:
        if entry.column != previous:
            table.add_row(_label(entry))
        previous = entry.column
        verdict = Text(f"{entry.style.symbol} {entry.style.word}", style=entry.style.terminal)
        if EXCEEDS_BAND in entry.remarks:
            verdict.append(" +", style="not bold dim")
        table.add_row(Text(f" {entry.gate.id}"), Text(_found(entry)), _blocks(entry), verdict)
    return table


def _reasons(matrix: Sequence[MatrixEntry]) -> Iterator[RenderableType]:
    """Return the reason of everything but PASS, below the compact table."""
    for entry in matrix:
        if entry.style.word != "PASS":
            head = Text(f"{entry.style.symbol} {entry.gate.id} on ", style=entry.style.terminal)
            head.append(legible(f"{entry.column.label}: {entry.reason}"), style="not bold")
            yield Padding(head, 0)
    if any(EXCEEDS_BAND in entry.remarks for entry in matrix):
        yield Text(f"+ {EXCEEDS_BAND}", style="dim")


def _label(entry: MatrixEntry) -> Text:
    return Text(legible(entry.column.label), style="bold")


def _blocks(entry: MatrixEntry) -> Text:
    return Text(str(entry.verdict.n) if entry.verdict else "")


def _found(entry: MatrixEntry) -> str:
    interval = f" ({entry.interval_text})" if entry.interval_text else ""
    return f"{entry.estimate_text}{interval}"


def _verdict_text(entry: MatrixEntry) -> Text:
    text = Text(f"{entry.style.symbol} {entry.style.word}", style=entry.style.terminal)
    if entry.style.word != "PASS":
        text.append(f"\n{legible(entry.reason)}", style="not bold dim")
    elif EXCEEDS_BAND in entry.remarks:
        text.append(f"\n{EXCEEDS_BAND}", style="not bold dim")
    return text
