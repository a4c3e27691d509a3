"""The same gates over earlier runs, and the runs at which their results changed. Pure.

Change points are found by binary segmentation over the boundaries between runs: at each
boundary the blocks before it are compared with the blocks after it (Mann-Whitney), the
surest boundary counts if it stays sure when corrected for all (Bonferroni), and both sides
are searched again. Blocks are the unit, never runs' averages: two runs are enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hyperbox.harness.model import Gate
from hyperbox.harness.report.axes import (
    PT,
    Panel,
    add_panel,
    axis_title,
    figure_of,
    near_limits,
    one_line,
    round_ticks,
    scale_of,
    span,
    tick_labels,
    without_negative,
)
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.matrix import Column, MatrixEntry, entries
from hyperbox.harness.report.outcome_styles import TUNED, OutcomeStyle
from hyperbox.harness.report.svg import SOFT, inline_svg, plot_style
from hyperbox.harness.verdicts.wording import number, relative, with_unit

__all__ = ["ChangePoint", "GateHistory", "HistoryPoint", "change_points", "history", "history_plot"]

ALPHA = 0.01
"""Bound of one false change point in a series without any."""

_WIDTH, _HEIGHT = 860.0, 190.0
_PANEL = Panel(70, 26, _WIDTH - 20, _HEIGHT - 46)
_SMALL = 10.5 * PT


@dataclass(frozen=True)
class HistoryPoint:
    """What one run says about a gate on a kernel."""

    run_id: str
    created: str
    version: str
    entry: MatrixEntry
    values: tuple[float, ...]

    @property
    def style(self) -> OutcomeStyle:
        """The look of the outcome."""
        return self.entry.style


@dataclass(frozen=True)
class ChangePoint:
    """The result is another one from point `index` on; `text` says by how much."""

    index: int
    p: float
    text: str


@dataclass(frozen=True)
class GateHistory:
    """A gate on a kernel in a lane, run by run, oldest first."""

    gate: Gate
    column: Column
    points: tuple[HistoryPoint, ...]
    changes: tuple[ChangePoint, ...]

    @property
    def axis(self) -> str:
        """What the values are: metric, arms, unit, and which way is better."""
        return axis_title(self.points[-1].entry)


def history(run: RunData, earlier: Sequence[RunData]) -> tuple[GateHistory, ...]:
    """Return the series of every gate of `run` that an earlier run measured in the same way.

    Runs whose gate has another metric, rule or arms are left out of its series. A run given
    twice counts once; runs differ by name or time, since a name may be used again.
    """
    by_name = {(one.run_id, one.created): one for one in (*earlier, run)}
    runs = sorted(by_name.values(), key=lambda one: one.created)
    found: dict[tuple[str, str, str], list[tuple[RunData, MatrixEntry]]] = {}
    for one in runs:
        for entry in entries(one):
            key = (entry.gate.id, entry.kernel, entry.lane)
            found.setdefault(key, []).append((one, entry))
    series = []
    for entry in entries(run):
        measured = found[entry.gate.id, entry.kernel, entry.lane]
        points = tuple(
            _point(one, other) for one, other in measured if _same_question(entry.gate, other.gate)
        )
        points = tuple(point for point in points if point.values)
        if len(points) > 1:
            changes = change_points([point.values for point in points])
            named = tuple(_change(entry, points, index, p) for index, p in changes)
            series.append(GateHistory(entry.gate, entry.column, points, named))
    return tuple(series)


def change_points(
    runs: Sequence[Sequence[float]], alpha: float = ALPHA
) -> tuple[tuple[int, float], ...]:
    """Return (index of the first run after a change, p-value), in order of the index."""
    if len(runs) < 2:
        return ()
    candidates = [(_p_value(runs[:cut], runs[cut:]), cut) for cut in range(1, len(runs))]
    p, cut = min(candidates)
    adjusted = p * len(candidates)
    if adjusted > alpha:
        return ()
    before = change_points(runs[:cut], alpha)
    after = tuple((index + cut, found) for index, found in change_points(runs[cut:], alpha))
    return (*before, (cut, adjusted), *after)


def history_plot(series: GateHistory) -> str:
    """Draw estimate and interval run by run, the limit, and the change points."""
    factor, points = scale_of(series.gate), series.points
    values = [factor * value for point in points for value in point.values]
    limits, note = near_limits(points[-1].entry, values)
    values += limits
    ends = span(values, room=0.1)
    if not series.gate.is_paired and min(values) >= 0:
        ends = without_negative(ends)
    with plot_style():
        figure = figure_of(_WIDTH, _HEIGHT)
        axes = add_panel(figure, _PANEL, x=(-0.5, len(points) - 0.5))
        axes.set_ylim(*ends)
        ticks = round_ticks(ends, 4)
        labels = tick_labels(points[-1].entry, ticks)
        axes.set_yticks(ticks, [one_line(label) for label in labels], fontsize=_SMALL)
        axes.grid(axis="y", color="#e3e6ea", lw=0.6)
        axes.set_axisbelow(True)
        for limit in limits:
            axes.axhline(limit, color="#222222", lw=0.9, ls=(0, (4, 2.5)), clip_on=False)
        above: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "fontsize": _SMALL}
        if note:
            axes.text(-0.5, 1.07, one_line(note.strip(" ()")), color=SOFT, **above)
        for change in series.changes:
            axes.axvline(change.index - 0.5, color=TUNED, lw=1.2, ls=(0, (3, 1.6)), clip_on=False)
            text = one_line(f"▼ {change.text}")
            axes.text(change.index - 0.5, 1.07, text, color=TUNED, ha="center", **above)
        every = math.ceil(len(points) / 8)
        shown = range(0, len(points), every)
        axes.set_xticks(shown, [_when(points, place) for place in shown])
        for place, point in enumerate(points):
            _draw_point(axes, point, place, factor)
    name = f"history-{series.gate.id}-{series.column.kernel}-{series.column.lane}"
    where = f"{series.gate.id} on {series.column.label}"
    return inline_svg(figure, name, f"{where} over {len(points)} runs")


def _when(points: Sequence[HistoryPoint], place: int) -> str:
    """Return date and version of a run; the time where two runs share a day."""
    days = [point.created[:10] for point in points]
    point = points[place]
    time = point.created[5:16].replace("T", " ")
    when = days[place] if len(set(days)) == len(days) else time
    return f"{one_line(when)}\n{one_line(point.version)}"


def _draw_point(axes: Axes, point: HistoryPoint, place: int, factor: float) -> None:
    wide = (axes.get_xlim()[1] - axes.get_xlim()[0]) / (_PANEL.right - _PANEL.left)
    jitter = [place + (at % 5 - 16) * wide for at in range(len(point.values))]
    heights = [factor * value for value in point.values]
    axes.plot(jitter, heights, "_", ms=4 * PT, mew=PT, color="#9a9a9a", clip_on=False)
    verdict = point.entry.verdict
    if verdict is None or verdict.estimate is None:
        return
    ink, estimate = point.style.ink, factor * verdict.estimate
    if verdict.low is not None and verdict.high is not None:
        axes.vlines(place, factor * verdict.low, factor * verdict.high, color=ink, lw=3 * PT)
    axes.plot(place, estimate, "o", ms=7 * PT, color=ink)
    axes.text(
        place + 8 * wide, estimate, point.style.symbol, color=ink, fontsize=_SMALL, va="center"
    )


def _same_question(gate: Gate, other: Gate) -> bool:
    asked = (gate.experiment, gate.metric, gate.rule, gate.arm, gate.baseline)
    return asked == (other.experiment, other.metric, other.rule, other.arm, other.baseline)


def _point(run: RunData, entry: MatrixEntry) -> HistoryPoint:
    return HistoryPoint(
        run.run_id,
        run.created,
        run.hyperbox_version,
        entry,
        tuple(value.value for value in entry.blocks),
    )


def _change(
    entry: MatrixEntry, points: Sequence[HistoryPoint], index: int, p: float
) -> ChangePoint:
    before, after = (points[at].values for at in (index - 1, index))
    shift = float(np.median(np.subtract.outer(np.asarray(after), np.asarray(before))))
    if entry.gate.is_ratio:
        text = f"{relative(shift).removesuffix(' %')} points"
    elif entry.unit == "%":  # a difference of percentages is not a percentage
        text = f"{'+' if shift > 0 else ''}{number(shift)} points"
    else:
        text = ("+" if shift > 0 else "") + with_unit(shift, entry.unit)
    return ChangePoint(index, p, text)


def _p_value(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> float:
    one, two = ([value for run in side for value in run] for side in (before, after))
    if not one or not two or len({*one, *two}) == 1:
        return 1.0
    # Every start of `hyperbox validate` would pay a second for it, few reports have a history.
    from scipy.stats import mannwhitneyu  # noqa: PLC0415

    return float(mannwhitneyu(one, two, alternative="two-sided", method="auto").pvalue)
