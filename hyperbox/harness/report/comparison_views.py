"""A comparison for readers: terminal table with a plot in it, figure, page.

All of them draw a change as the factor by which a side is better, on a logarithmic scale:
right of the middle the second side is better, left of it the first, whether lower or
higher values of the metric are good.
"""

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

from hyperbox.harness.report.comparison_data import Comparison, Finding, Row
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
    Finding.TOO_FEW: "·",
}
_COLOURS = {Finding.FIRST_BETTER: _FIRST, Finding.SECOND_BETTER: _SECOND}
_SILENT = (Finding.TOO_FEW, Finding.SAME)
_MOST_DRAWN = 60
_WIDE = 100
_FURTHEST = math.log(20)  # beyond twentyfold a line's length says nothing more
_FACTORS = (1.001, 1.002, 1.005, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20)


def comparison_table(found: Comparison, width: int = _WIDE) -> RenderableType:
    """Give one row per metric and arm, what is sure first; rows that tell nothing are left out.

    From 100 columns on each row has a strip that draws which side is better.
    """
    table = Table(
        title=f"{legible(found.second)} against {legible(found.first)}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    wide = width >= _WIDE
    table.add_column("Metric (arm), ↓ lower or ↑ higher is better", overflow="fold")
    table.add_column("Change (interval)", justify="right", no_wrap=True)
    if wide:
        table.add_column(_strip_title(found), no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    reach = _reach(found.rows)
    for finding, rows in found.groups:
        if finding in _SILENT:
            continue  # the sentence counts them, the page and the JSON form list them
        head = f"{_SYMBOLS[finding]} {found.heading(finding)} ({len(rows)})"
        table.add_row(Text(legible(head), style="bold" if finding in _COLOURS else "dim"))
        for row in rows:
            drawn = [Text(strip(row, reach))] if wide else []
            told = (Text(row.change_text), *drawn, Text(_p_text(row.p)))
            table.add_row(Text(f" {_name(row, found)}"), *told)
    return table


def strip(row: Row, reach: float, half: int = 7) -> str:
    """Draw in characters how much better which side is: the second to the right."""
    if not row.ratio or reach <= 0:
        return ""
    places = [
        round(max(-1.0, min(1.0, _drawn(value) / reach)) * half) + half for value in row.advantage
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
    }
    return f"{_SYMBOLS[row.finding]} {legible(words.get(row.finding, str(row.finding)))}"


def comparison_figure(found: Comparison) -> str:
    """Draw the relative changes with their intervals, what is sure first; "" if there are none.

    Colours (orange: the first is better, blue: the second) are doubled by the side of the
    middle line and by the shape of the markers.
    """
    rows = _figure_rows(found)[:_MOST_DRAWN]
    if not rows:
        return ""
    with plot_style():
        figure = Figure(figsize=(9.4, 1.2 + 0.30 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color="#8a8a8a", lw=0.9, zorder=1)
        markers = {Finding.FIRST_BETTER: "<", Finding.SECOND_BETTER: ">", Finding.SAME: "s"}
        for place, row in enumerate(rows):
            colour = _COLOURS.get(row.finding, _OPEN)
            estimate, low, high = map(_drawn, row.advantage)
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
        reach = 1.05 * _reach(rows) or 0.01
        axes.set_xlim(-reach, reach)
        ticks = _ticks(reach)
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set_yticks(range(len(rows)), [_name(row, found) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params("y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#e8e8e8", lw=0.7)
        axes.set_axisbelow(True)
        first, second = legible(found.first), legible(found.second)
        axes.set_title(f"◀ {first} is better by", loc="left", color=_FIRST)
        axes.set_title(f"{second} is better by ▶", loc="right", color=_SECOND)
        axes.text(
            1.01,
            -0.9,
            f"{second} against {first}",
            fontsize=8,
            color="#4a4a4a",
            transform=axes.get_yaxis_transform(),
            va="bottom",
        )
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
        left_out=max(0, len(_figure_rows(found)) - _MOST_DRAWN),
        better=lambda row: better(row, found),
        sure=[(f, rows) for f, rows in found.groups if f in _COLOURS],
        colours={Finding.FIRST_BETTER: "first", Finding.SECOND_BETTER: "second"},
        symbols=_SYMBOLS,
    )


def _figure_rows(found: Comparison) -> list[Row]:
    """Give the rows that a figure can tell something of, in its order."""
    groups = [rows for finding, rows in found.groups if finding not in _SILENT]
    return [row for rows in groups for row in rows if row.ratio]


def _name(row: Row, found: Comparison) -> str:
    """Name a row: metric, arm and direction; kernel or experiment only where rows differ in it."""
    arrow = "↓" if row.metric.better == "lower" else "↑"
    name = f"{row.metric.id} ({row.arm}) {arrow}"
    shown = [one for one in found.rows if one.finding not in _SILENT]
    alike = [one for one in shown if (one.metric.id, one.arm) == (row.metric.id, row.arm)]
    if len({one.kernel for one in found.rows}) > 1:
        name = f"{row.kernel} · {name}"
    if len({one.experiment for one in alike}) > 1:
        name = f"{row.experiment} · {name}"
    return legible(name)


def _strip_title(found: Comparison) -> str:
    told = f"◀ {legible(found.first)}  {legible(found.second)} ▶"
    return told if len(told) <= 15 else "◀ first second ▶"


def _ticks(reach: float) -> dict[float, str]:
    """Give places and labels of an axis of factors to both sides, not too many."""
    chosen: list[float] = []
    for factor in _FACTORS:
        place = math.log(factor)
        if place <= reach and place - (chosen[-1] if chosen else 0.0) >= reach / 5:
            chosen.append(place)
    sides = [*(-place for place in reversed(chosen)), 0.0, *chosen]
    return {
        place: f"{math.exp(abs(place)):.4g}\N{MULTIPLICATION SIGN}" if place else "equal"
        for place in sides
    }


def _reach(rows: Sequence[Row]) -> float:
    shown = [row for row in rows if row.ratio]
    ends = [abs(_drawn(value)) for row in shown for value in row.advantage]
    return max(ends, default=0.0)


def _drawn(advantage: float) -> float:
    return max(-_FURTHEST, min(_FURTHEST, advantage)) if math.isfinite(advantage) else _FURTHEST


def _p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
