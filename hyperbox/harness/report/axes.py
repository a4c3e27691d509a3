"""What the figures of a gate share: panels placed by pixels, ranges, ticks and titles.

Layouts are fixed by an estimate of text widths: matplotlib's own layout engines draw a figure
several times, which a report of a hundred figures would wait for.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hyperbox.harness.model import Gate, Rule, Verdict
from hyperbox.harness.report.matrix import MatrixEntry
from hyperbox.harness.verdicts.wording import number, typeset
from hyperbox.printing import legible

__all__ = [
    "PT",
    "Panel",
    "add_panel",
    "axis_title",
    "drawable",
    "figure_of",
    "fitted",
    "higher_is_good",
    "limits_drawn",
    "near_limits",
    "one_line",
    "round_ticks",
    "scale_of",
    "span",
    "text_width",
    "tick_labels",
    "without_negative",
]

PT = 0.75
"""Points in a CSS pixel: matplotlib's sizes are points, layouts here are pixels."""

_BLANKS = re.compile("[ \t\n\u2028\u2029]+")  # not the no-break space within numbers
_THOUSANDS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


class Panel(NamedTuple):
    """The frame of one plot within its figure, in pixels from the top left corner."""

    left: float
    top: float
    right: float
    bottom: float


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure of so many pixels."""
    return Figure(figsize=(width / 96, height / 96))


def add_panel(figure: Figure, panel: Panel, *, x: tuple[float, float] = (0.0, 1.0)) -> Axes:
    """Return axes in a frame of the figure, with the range of x, a bottom line and no ticks yet."""
    width, height = 96 * figure.get_size_inches()
    axes = figure.add_axes(
        (
            panel.left / width,
            1 - panel.bottom / height,
            (panel.right - panel.left) / width,
            (panel.bottom - panel.top) / height,
        )
    )
    axes.set_autoscale_on(False)
    axes.patch.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(*x)
    axes.tick_params("x", length=3, pad=3, labelsize=10.5 * PT)
    axes.tick_params("y", length=0, pad=5)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def span(values: Iterable[float], room: float = 0.06) -> tuple[float, float]:
    """Return a range that shows all finite values, with some room (a fraction) beyond them."""
    shown = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(shown), max(shown)
    margin = room * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def without_negative(ends: tuple[float, float]) -> tuple[float, float]:
    """Return the range without the room below zero, where what is shown cannot lie."""
    return max(ends[0], -0.04 * ends[1]), ends[1]


def round_ticks(ends: tuple[float, float], about: int) -> list[float]:
    """Return at most `about` + 1 round values within a range."""
    locator = MaxNLocator(about, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)
    inner = 1e-9 * (ends[1] - ends[0])
    return [
        round(float(tick), 12) + 0.0
        for tick in locator.tick_values(*ends)
        if ends[0] - inner <= tick <= ends[1] + inner
    ]


def drawable(entry: MatrixEntry) -> Verdict | None:
    """Return the entry's verdict if it has an estimate and all its numbers fit on an axis."""
    verdict = entry.verdict
    if verdict is None or verdict.estimate is None:
        return None
    numbers = (verdict.estimate, verdict.low or 0.0, verdict.high or 0.0)
    return verdict if all(abs(value) < 1e300 for value in numbers) else None


def scale_of(gate: Gate) -> float:
    """Return the factor of drawn values: ratio rules are drawn in percent."""
    return 100.0 if gate.is_ratio else 1.0


def limits_drawn(entry: MatrixEntry) -> tuple[float, ...]:
    """Return the limits on the drawn scale."""
    factor = scale_of(entry.gate)
    return tuple(factor * limit for limit in entry.limits if limit is not None)


def near_limits(entry: MatrixEntry, shown: Sequence[float]) -> tuple[list[float], str]:
    """Return the limits that can be drawn without flattening what is shown, or a note."""
    low, high = min(shown), max(shown)
    reach = 2 * (high - low) or math.inf
    limits = limits_drawn(entry)
    near = [limit for limit in limits if low - reach <= limit <= high + reach]
    if near or not limits:
        return near, ""
    where = "above" if limits[-1] > high else "below"
    return near, f" (limit {entry.limit_text} lies {where})"


def higher_is_good(entry: MatrixEntry) -> bool:
    """Whether the good side of the limit is above it, and only there."""
    return entry.limits[1] is None


def axis_title(entry: MatrixEntry) -> str:
    """Return metric, arms and the better direction of a gate's axis."""
    title = entry.metric.title if entry.metric else entry.gate.metric
    arrow = "better →" if higher_is_good(entry) else "← better"
    if entry.gate.rule is Rule.WITHIN:
        arrow = "equal is good"
    if entry.gate.is_paired:
        title = f"{title}: {entry.gate.arm} against {entry.gate.baseline}"
    unit = f", {entry.unit}" if entry.unit not in ("", "1", "%") else ""
    return f"{title}{unit} ({arrow})"


def tick_labels(entry: MatrixEntry, ticks: Sequence[float]) -> list[str]:
    """Return the labels of an axis' ticks: alike in decimals and thousands, "%" where due."""
    largest = max(map(abs, ticks), default=0.0)
    letters = ((1e9, "G"), (1e6, "M"), (1e5, "k"))
    letter = next((letter for least, letter in letters if largest >= least), "")
    shown = [value / _THOUSANDS[letter] for value in ticks]
    decimals = next((d for d in range(12) if all(round(v, d) == v for v in shown)), None)
    unit = f"{letter} %" if entry.unit == "%" else letter
    sign = "+" if entry.gate.is_ratio else ""
    return [f"{_tick(value, sign, decimals)}{unit}" if value else "0" for value in shown]


def one_line(text: str) -> str:
    """Return measured text as one typeset line, whatever is in it."""
    return typeset(_BLANKS.sub(" ", legible(text)).strip())


def text_width(text: str, size: float = 12.0) -> float:
    """Estimate the width of a line of text in pixels, on the generous side."""
    return size * sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6 for c in text)


def fitted(text: str, width: float, size: float = 12.0) -> str:
    """Shorten text in its middle until it is no wider than `width` pixels; one typeset line."""
    text = one_line(text)
    if not text or text_width(text, size) <= width:
        return text
    for kept in range(len(text) - 1, 2, -1):
        short = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
        if text_width(short, size) <= width:
            return short
    return f"{text[0]}…{text[-1]}"


def _tick(value: float, sign: str, decimals: int | None) -> str:
    if abs(value) >= 1e4:
        return number(value)
    return f"{value:{sign}g}" if decimals is None else f"{value:{sign}.{decimals}f}"
