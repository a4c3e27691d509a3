"""A comparison for readers: terminal table with a plot in it, figure, page.

All of them draw a change as the factor by which a side is better, on a logarithmic scale:
right of the middle the second side is better, left of it the first, whether lower or
higher values of the metric are good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from hyperbox.harness.report.comparison_data import ComparedMetric, SideComparison, SideFinding
from hyperbox.harness.report.templating import environment
from hyperbox.harness.verdicts.wording import number
from hyperbox.printing import legible

__all__ = ["Bar", "axis", "bars", "comparison_page", "comparison_table", "has_answer", "strip"]

_SYMBOLS = {
    SideFinding.FIRST_BETTER: "◀",
    SideFinding.SECOND_BETTER: "▶",
    SideFinding.SAME: "=",
    SideFinding.NOT_SURE: "?",
    SideFinding.TOO_FEW: "·",
}
_SURE = {SideFinding.FIRST_BETTER: "first", SideFinding.SECOND_BETTER: "second"}
_SHAPES = {
    SideFinding.FIRST_BETTER: "M-6 0l9 -5v10z",
    SideFinding.SECOND_BETTER: "M6 0l-9 -5v10z",
    "open": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
}
_SILENT = (SideFinding.TOO_FEW, SideFinding.SAME)
_MOST_DRAWN = 60
_WIDE = 100
_FURTHEST = math.log(20)  # beyond twentyfold a line's length says nothing more
_FACTORS = (1.001, 1.002, 1.005, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20)


def has_answer(found: SideComparison) -> bool:
    """Whether any row has an answer: not all are identical or have too few blocks."""
    return any(row.finding not in _SILENT for row in found.rows)


def comparison_table(found: SideComparison, width: int = _WIDE) -> RenderableType:
    """Return one row per metric and arm, what is sure first; rows without an answer are left out.

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
        table.add_row(Text(legible(head), style="bold" if finding in _SURE else "dim"))
        for row in rows:
            drawn = [Text(strip(row, reach))] if wide else []
            cells = (Text(row.change_text), *drawn, Text(_p_text(row.p)))
            table.add_row(Text(f" {_name(row, found)}"), *cells)
    return table


def strip(row: ComparedMetric, reach: float, half: int = 7) -> str:
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


def better(row: ComparedMetric, found: SideComparison) -> str:
    """Say which side is better."""
    words = {
        SideFinding.FIRST_BETTER: found.first,
        SideFinding.SECOND_BETTER: found.second,
        SideFinding.SAME: "equal",
    }
    return f"{_SYMBOLS[row.finding]} {legible(words.get(row.finding, str(row.finding)))}"


@dataclass(frozen=True)
class Bar:
    """A row of the figure: where its ends and its estimate lie, in percent of the width."""

    row: ComparedMetric
    name: str
    low: str
    at: str
    high: str


def bars(found: SideComparison) -> tuple[Bar, ...]:
    """Place the relative changes with their intervals, what is sure first."""
    rows = _figure_rows(found)[:_MOST_DRAWN]
    reach = _figure_reach(rows)

    def place(advantage: float) -> str:
        return _percent(_drawn(advantage), reach)

    drawn = []
    for row in rows:
        at, low, high = map(place, row.advantage)
        drawn.append(Bar(row, _name(row, found), low, at, high))
    return tuple(drawn)


def axis(found: SideComparison) -> tuple[tuple[str, str], ...]:
    """Return the ticks of the figure: place in percent of the width, and label."""
    reach = _figure_reach(_figure_rows(found)[:_MOST_DRAWN])
    return tuple((_percent(place, reach), label) for place, label in _ticks(reach).items())


def comparison_page(found: SideComparison) -> str:
    """Return a self-contained HTML page: sentence, figure, table.

    Colours (orange: the first is better, blue: the second) are doubled by the side of the
    middle line, by the shape of the markers, and by dashes where nothing is sure.
    """
    pages = environment()
    pages.filters |= {"number": number, "p": _p_text}
    return pages.get_template("comparison.html.j2").render(
        found=found,
        bars=bars(found),
        axis=axis(found),
        left_out=sum(row.finding not in _SILENT for row in found.rows) - len(bars(found)),
        better=lambda row: better(row, found),
        sure=[(f, rows) for f, rows in found.groups if f in _SURE],
        sides=_SURE,
        shapes=_SHAPES,
        symbols=_SYMBOLS,
    )


def _figure_reach(rows: Sequence[ComparedMetric]) -> float:
    return 1.05 * _reach(rows) or 0.01


def _percent(place: float, reach: float) -> str:
    """Return a place on the axis as percent of its width, with a rim for markers."""
    return f"{50 + 48 * place / reach:.1f}%"


def _figure_rows(found: SideComparison) -> list[ComparedMetric]:
    """Return the rows that a figure can show, in its order."""
    groups = [rows for finding, rows in found.groups if finding not in _SILENT]
    return [row for rows in groups for row in rows if row.ratio]


def _name(row: ComparedMetric, found: SideComparison) -> str:
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


def _strip_title(found: SideComparison) -> str:
    title = f"◀ {legible(found.first)}  {legible(found.second)} ▶"
    return title if len(title) <= 15 else "◀ first second ▶"


def _ticks(reach: float) -> dict[float, str]:
    """Return places and labels of an axis of factors to both sides, not too many."""
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


def _reach(rows: Sequence[ComparedMetric]) -> float:
    shown = [row for row in rows if row.ratio]
    ends = [abs(_drawn(value)) for row in shown for value in row.advantage]
    return max(ends, default=0.0)


def _drawn(advantage: float) -> float:
    return max(-_FURTHEST, min(_FURTHEST, advantage)) if math.isfinite(advantage) else _FURTHEST


def _p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
