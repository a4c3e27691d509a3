"""The forest plot of a gate: estimate and interval on every kernel against the target."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes

from hyperbox.harness.report.axes import (
    PT,
    Panel,
    add_panel,
    axis_title,
    drawable,
    figure_of,
    fitted,
    limits_drawn,
    one_line,
    round_ticks,
    scale_of,
    span,
    text_width,
    tick_labels,
)
from hyperbox.harness.report.matrix import MatrixEntry
from hyperbox.harness.report.outcome_styles import GOOD, OutcomeStyle
from hyperbox.harness.report.svg import SOFT, as_class, inline_svg, plot_style

__all__ = ["forest_plot"]

_WIDTH = 900.0
_ROW = 26.0
_TOP = 20.0
_NAME = 180.0  # pixels for a kernel's name
_VERDICT = (280.0, 440.0)  # least and most pixels for the verdict beside a row
_GAP = math.nan  # ends one stroke of a line and begins the next


def forest_plot(rows: Sequence[MatrixEntry]) -> str:
    """Draw estimate and interval of one gate on every kernel against its target, as SVG.

    The good side of the limit is shaded (darker: the target band); faint ticks are single
    blocks. Return "" if nothing was measured.
    """
    if not any(drawable(entry) for entry in rows):
        return ""
    names = [fitted(entry.column.label, _NAME) for entry in rows]
    left = 28 + min(_NAME, max(map(text_width, names)))
    beside = 24 + max(text_width(_verdict_text(entry)) for entry in rows)
    right = _WIDTH - min(max(beside, _VERDICT[0]), _VERDICT[1])
    bottom = _TOP + _ROW * len(rows)
    with plot_style():
        figure = figure_of(_WIDTH, bottom + 42)
        axes = add_panel(figure, Panel(left, _TOP, right, bottom), x=_range(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), names)
        _draw_target(axes, rows[0])
        _draw_blocks(axes, rows)
        _draw_estimates(axes, rows)
        for place, entry in enumerate(rows):
            axes.text(
                1 + 12 / (right - left),
                place,
                one_line(_verdict_text(entry)),
                transform=axes.get_yaxis_transform(),
                va="center_baseline",
                color=entry.style.ink,
                gid=as_class("beside"),
            )
        _draw_axis(axes, rows[0])
    return inline_svg(figure, f"forest-{rows[0].gate.id}", _label(rows), "forest")


def _label(rows: Sequence[MatrixEntry]) -> str:
    """Return what the figure shows, for screen readers."""
    said = [f"{e.column.label} {e.style.word} {e.estimate_text}".rstrip() for e in rows[:12]]
    more = f" and {len(rows) - 12} more" if len(rows) > 12 else ""
    return f"{rows[0].gate.id}, limit {rows[0].limit_text}: {', '.join(said)}{more}"


def _range(rows: Sequence[MatrixEntry]) -> tuple[float, float]:
    factor, paired = scale_of(rows[0].gate), rows[0].gate.is_paired
    values = [*limits_drawn(rows[0]), *([0.0] if paired else [])]
    for entry in rows:
        verdict = drawable(entry)
        if verdict is not None:
            ends = (verdict.estimate, verdict.low, verdict.high)
            values += [factor * value for value in ends if value is not None]
            values += [factor * value for value in _blocks(entry)]
    low, high = span(values)
    if paired or min(values) < 0:
        return low, high
    return -0.04 * high, high  # levels: from zero on


def _verdict_text(entry: MatrixEntry) -> str:
    """Return what stands beside a row: outcome, estimate and interval."""
    text = f"{entry.style.symbol} {entry.style.word}"
    if drawable(entry) is None:
        return text
    interval = f" ({entry.interval_text})" if entry.interval_text else ""
    return f"{text}  {entry.estimate_text}{interval}"


def _blocks(entry: MatrixEntry) -> list[float]:
    return [value.value for value in entry.blocks if math.isfinite(value.value)]


def _draw_target(axes: Axes, entry: MatrixEntry) -> None:
    """Shade the good side, the band within it, and name the limit."""
    gate, factor = entry.gate, scale_of(entry.gate)
    start, end = axes.get_xlim()
    low, high = (None if edge is None else factor * edge for edge in entry.limits)
    axes.axvspan(
        start if low is None else low,
        end if high is None else high,
        color=GOOD,
        alpha=0.1,
        lw=0,
        clip_on=False,
    )
    limit = factor * entry.limit
    if gate.band_upper is not None:
        edge = -factor * gate.band_upper if gate.is_ratio else gate.band_upper
        axes.axvspan(*sorted((limit, min(max(edge, start), end))), color=GOOD, alpha=0.2, lw=0)
    if gate.is_paired and start < 0 < end:
        axes.axvline(0, color="#9a9a9a", lw=0.6, clip_on=False)
    for edge in limits_drawn(entry):
        axes.axvline(edge, color="#222222", lw=0.9, ls=(0, (4, 2.5)), clip_on=False)
    axes.text(
        limit,
        1 + 5 / (_ROW * (axes.get_ylim()[0] + 0.5)),
        one_line(f"limit {entry.limit_text}"),
        transform=axes.get_xaxis_transform(),
        ha="right" if limit > (start + end) / 2 else "left",
        fontsize=10.5 * PT,
        color=SOFT,
        gid=as_class("small"),
    )


def _draw_blocks(axes: Axes, rows: Sequence[MatrixEntry]) -> None:
    """Draw every block of every row as a faint tick, all in one path."""
    factor = scale_of(rows[0].gate)
    strokes = [
        (factor * value, place)
        for place, entry in enumerate(rows)
        if drawable(entry) is not None
        for value in _blocks(entry)
    ]
    across = [x for value, _ in strokes for x in (value, value, _GAP)]
    up = [y for _, place in strokes for y in (place - 0.19, place + 0.19, _GAP)]
    axes.plot(across, up, color="#9a9a9a", lw=PT, clip_on=False)


def _draw_estimates(axes: Axes, rows: Sequence[MatrixEntry]) -> None:
    """Draw intervals and estimates, one path for each outcome."""
    factor = scale_of(rows[0].gate)
    for style, found in _by_style(rows):
        bars, points = [], []
        for place, entry in found:
            verdict = drawable(entry)
            if verdict is None or verdict.estimate is None:
                continue
            points.append((factor * verdict.estimate, place))
            if verdict.low is not None and verdict.high is not None:
                bars += [(factor * verdict.low, place), (factor * verdict.high, place), (_GAP, 0)]
        if bars:
            axes.plot(*zip(*bars, strict=True), color=style.ink, lw=3 * PT, clip_on=False)
        if points:
            axes.plot(
                *zip(*points, strict=True),
                style.marker,
                ms=10 * PT,
                mfc=style.fill,
                mec=style.ink,
                mew=1.2 * PT,
                clip_on=False,
            )


def _by_style(
    rows: Sequence[MatrixEntry],
) -> Iterable[tuple[OutcomeStyle, list[tuple[int, MatrixEntry]]]]:
    ranked = sorted(enumerate(rows), key=lambda row: row[1].style.word)
    for _, group in itertools.groupby(ranked, key=lambda row: row[1].style.word):
        found = list(group)
        yield found[0][1].style, found


def _draw_axis(axes: Axes, entry: MatrixEntry) -> None:
    ticks = round_ticks(axes.get_xlim(), 6)
    axes.set_xticks(ticks, [one_line(label) for label in tick_labels(entry, ticks)])
    axes.set_xlabel(one_line(axis_title(entry)), labelpad=5, gid=as_class("title"))
