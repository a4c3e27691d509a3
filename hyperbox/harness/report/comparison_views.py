"""A comparison for readers: terminal table with a plot in it, figure, page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import jinja2
from matplotlib.figure import Figure
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from hyperbox.harness.report.comparison import Comparison, Finding, Row
from hyperbox.harness.report.svg import inline_svg, plot_style
from hyperbox.harness.verdicts.wording import legible, number, typeset

__all__ = ["comparison_figure", "comparison_page", "comparison_table", "strip"]

_TEMPLATES = Path(__file__).parent / "templates"
_FIRST, _SECOND, _OPEN = "#a84300", "#0063a0", "#6b6b6b"
_SYMBOLS = {
    Finding.FIRST_BETTER: "◀",
    Finding.SECOND_BETTER: "▶",
    Finding.SAME: "=",
    Finding.NOT_SURE: "?",
}
_COLOURS = {Finding.FIRST_BETTER: _FIRST, Finding.SECOND_BETTER: _SECOND}
_MOST_DRAWN = 60
_WIDE = 100


def comparison_table(found: Comparison, width: int = _WIDE) -> RenderableType:
    """Give one row per metric and arm; from 100 columns on with a strip that draws the change."""
    table = Table(
        title=f"{legible(found.second)} against {legible(found.first)}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("Metric (arm)", overflow="fold")
    table.add_column("Change (interval)", justify="right", no_wrap=True)
    if width >= _WIDE:
        table.add_column("", no_wrap=True)
    table.add_column("Better", overflow="fold")
    table.add_column("p", justify="right", no_wrap=True)
    reach = _reach(found.rows)
    previous = None
    for row in found.rows:
        group = (row.kernel, row.experiment, row.lane)
        if group != previous:
            table.add_row(Text(legible(f"{row.experiment}, {row.kernel}"), style="bold"))
        previous = group
        drawn = [Text(strip(row, reach))] if width >= _WIDE else []
        table.add_row(
            Text(legible(f" {row.metric.id} ({row.arm})")),
            Text(row.change_text),
            *drawn,
            Text(better(row, found), style="bold" if row.finding in _COLOURS else "dim"),
            Text(_p_text(row.p)),
        )
    return table


def strip(row: Row, reach: float, half: int = 7) -> str:
    """Draw a relative change and its interval in characters around a zero line."""
    if not row.ratio or reach <= 0:
        return ""
    places = [
        round(max(-1.0, min(1.0, _drawn(value) / reach)) * half) + half for value in row.change
    ]
    characters = ["·"] * (2 * half + 1)
    characters[half] = "┊"
    for place in range(min(places), max(places) + 1):
        characters[place] = "─"
    characters[places[0]] = "●"
    return "".join(characters)


def better(row: Row, found: Comparison) -> str:
    """Say which side is better."""
    words = {
        Finding.FIRST_BETTER: found.first,
        Finding.SECOND_BETTER: found.second,
        Finding.SAME: "equal",
        Finding.NOT_SURE: "not sure",
    }
    return f"{_SYMBOLS[row.finding]} {legible(words[row.finding])}"


def comparison_figure(found: Comparison) -> str:
    """Draw the relative changes with their intervals, grouped by experiment; "" if there are none.

    Colours (orange: the first is better, blue: the second) are doubled by arrow markers.
    """
    rows = [row for row in found.rows if row.ratio][:_MOST_DRAWN]
    if not rows:
        return ""
    with plot_style():
        figure = Figure(figsize=(9.4, 1.0 + 0.30 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color="#8a8a8a", lw=0.9, zorder=1)
        markers = {Finding.FIRST_BETTER: "<", Finding.SECOND_BETTER: ">", Finding.SAME: "s"}
        for place, row in enumerate(rows):
            colour = _COLOURS.get(row.finding, _OPEN)
            estimate, low, high = (100 * _drawn(value) for value in row.change)
            axes.plot([low, high], [place, place], color=colour, lw=2.2, zorder=2)
            marker = markers.get(row.finding, "o")
            axes.plot(estimate, place, marker, color=colour, ms=7, mec="white", mew=0.8, zorder=3)
            axes.text(
                1.01,
                place,
                typeset(legible(row.change_text)),
                color=colour,
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=8,
            )
        axes.set_yticks(range(len(rows)), [_row_label(row, found) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params("y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#e8e8e8", lw=0.7)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(lambda value, _: typeset(f"{value:+g} %") if value else "0")
        axes.set_xlabel(legible(f"change of {found.second} against {found.first}"))
    return inline_svg(figure, "comparison", legible(found.sentence))


def comparison_page(found: Comparison) -> str:
    """Give a self-contained HTML page: sentence, figure, table."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: legible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"typeset": typeset, "number": number, "p": _p_text}
    return environment.get_template("comparison.html.j2").render(
        found=found,
        figure=comparison_figure(found),
        left_out=max(0, sum(row.ratio for row in found.rows) - _MOST_DRAWN),
        better=lambda row: better(row, found),
    )


def _row_label(row: Row, found: Comparison) -> str:
    """Name a row; its kernel only where rows differ in it."""
    name = f"{row.metric.id} ({row.arm})"
    one_kernel = len({other.kernel for other in found.rows}) == 1
    return legible(name if one_kernel else f"{row.kernel} · {name}")


def _reach(rows: Sequence[Row]) -> float:
    ends = [abs(_drawn(value)) for row in rows if row.ratio for value in row.change]
    return max(ends, default=0.0)


def _drawn(change: float) -> float:
    """Keep a figure readable: beyond tenfold an arrow's length says nothing more."""
    return max(-1.0, min(9.0, change)) if math.isfinite(change) else 9.0


def _p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
