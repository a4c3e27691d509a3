"""Verdicts on the terminal, as a rich table."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.marks import MARKS
from hyperbox.harness.report.matrix import Entry, entries, headline
from hyperbox.harness.verdicts.wording import EXCEEDS_BAND, legible

__all__ = ["headline_text", "verdict_table"]


def headline_text(run: RunData) -> Text:
    """Give the run's verdict sentence with its symbol."""
    told = headline(run)
    mark = MARKS[told.outcome]
    return Text(legible(f"{mark.symbol} {told.text}"), style=mark.style)


def verdict_table(run: RunData) -> Table:
    """Give one row per gate and kernel: target, estimate, interval, blocks, verdict.

    Reasons stand below the estimate where a reader needs them: for everything but PASS.
    """
    table = Table(title=f"hyperbox validate · {run.lane} lane", title_justify="left")
    table.add_column("Kernel", no_wrap=True)
    table.add_column("Gate", no_wrap=True)
    table.add_column("Target")
    table.add_column("Estimate (interval)", justify="right")
    table.add_column("n", justify="right")
    table.add_column("Verdict")
    previous = None
    for entry in entries(run):
        if previous is not None and entry.column != previous:
            table.add_section()
        table.add_row(
            "" if entry.column == previous else Text(legible(entry.column.label), style="bold"),
            Text(entry.gate.id),
            Text(entry.gate.target),
            Text(_found(entry)),
            Text(str(entry.verdict.n) if entry.verdict else ""),
            _told(entry),
        )
        previous = entry.column
    return table


def _found(entry: Entry) -> str:
    interval = f" ({entry.interval_text})" if entry.interval_text else ""
    return f"{entry.estimate_text}{interval}"


def _told(entry: Entry) -> Text:
    text = Text(f"{entry.mark.symbol} {entry.mark.word}", style=entry.mark.style)
    if entry.mark.word != "PASS":
        text.append(f"\n{legible(entry.reason)}", style="not bold dim")
    elif EXCEEDS_BAND in entry.remarks:
        text.append(f"\n{EXCEEDS_BAND}", style="not bold dim")
    return text
