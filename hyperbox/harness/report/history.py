"""The same gates over earlier runs, and the runs at which their results changed. Pure.

Change points are found by binary segmentation over the boundaries between runs: at each
boundary the blocks before it are held against the blocks after it (Mann-Whitney), the
surest boundary counts if it stays sure when all are paid for (Bonferroni), and both sides
are searched again. Blocks are the unit, never runs' averages: two runs are enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

from hyperbox.harness.model import Gate
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.drawing import Drawing, Scale
from hyperbox.harness.report.matrix import Column, MatrixEntry, entries
from hyperbox.harness.report.outcome_styles import OutcomeStyle
from hyperbox.harness.report.plots import (
    axis_title,
    near_limits,
    scale_of,
    tick_labels,
)
from hyperbox.harness.verdicts.wording import number, relative, with_unit

__all__ = ["ChangePoint", "GateHistory", "HistoryPoint", "change_points", "history", "history_plot"]

ALPHA = 0.01
"""Bound of one false change point in a series without any."""

_WIDTH, _HEIGHT = 860.0, 190.0


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
    twice counts once; runs are told apart by name and time, since a name may be used again.
    """
    told_apart = {(one.run_id, one.created): one for one in (*earlier, run)}
    runs = sorted(told_apart.values(), key=lambda one: one.created)
    found: dict[tuple[str, str, str], list[tuple[RunData, MatrixEntry]]] = {}
    for one in runs:
        for entry in entries(one):
            key = (entry.gate.id, entry.kernel, entry.lane)
            found.setdefault(key, []).append((one, entry))
    series = []
    for entry in entries(run):
        told = found[entry.gate.id, entry.kernel, entry.lane]
        points = tuple(
            _point(one, other) for one, other in told if _same_question(entry.gate, other.gate)
        )
        points = tuple(point for point in points if point.values)
        if len(points) > 1:
            changes = change_points([point.values for point in points])
            told_changes = tuple(_change(entry, points, index, p) for index, p in changes)
            series.append(GateHistory(entry.gate, entry.column, points, told_changes))
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
    drawing = Drawing(_WIDTH, _HEIGHT)
    y = Scale.around(values, _HEIGHT - 46, 26, room=0.1)
    x = Scale(-0.5, len(points) - 0.5, 70, _WIDTH - 20)
    if not series.gate.is_paired and min(values) >= 0:
        y = y.above_zero()
    ticks = y.ticks(4)
    for value, label in zip(ticks, tick_labels(points[-1].entry, ticks), strict=True):
        drawing.line(x.start, y(value), x.end, y(value), "grid")
        drawing.text(x.start - 8, y(value) + 4, label, "small end")
    for limit in limits:
        drawing.line(x.start, y(limit), x.end, y(limit), "limit")
    if note:
        drawing.text(x.start, 14, note.strip(" ()"), "small")
    for change in series.changes:
        drawing.line(x(change.index - 0.5), 20, x(change.index - 0.5), y.start, "tuned dash")
        drawing.text(x(change.index - 0.5), 14, f"▼ {change.text}", "small mid", "#0072b2")
    every = math.ceil(len(points) / 8)
    days = [point.created[:10] for point in points]
    times = [point.created[5:16].replace("T", " ") for point in points]
    for place, point in enumerate(points):
        _draw_point(drawing, point, x(place), y, factor)
        if place % every == 0:
            when = days[place] if len(set(days)) == len(days) else times[place]
            drawing.text(x(place), y.start + 18, when, "small mid")
            drawing.text(x(place), y.start + 32, point.version, "small mid")
    return drawing.svg(f"{series.gate.id} on {series.column.label} over {len(points)} runs")


def _draw_point(drawing: Drawing, point: HistoryPoint, x: float, y: Scale, factor: float) -> None:
    jitter = (place % 5 - 2 for place in range(len(point.values)))
    blocks = [
        (x - 14 + side, y(factor * value)) for side, value in zip(jitter, point.values, strict=True)
    ]
    for at, height in blocks:
        drawing.line(at - 2, height, at + 2, height, "tick")
    verdict = point.entry.verdict
    if verdict is None or verdict.estimate is None:
        return
    if verdict.low is not None and verdict.high is not None:
        drawing.area(
            x - 1.5,
            y(factor * verdict.low),
            x + 1.5,
            y(factor * verdict.high),
            fill=point.style.ink,
        )
    drawing.dots([(x, y(factor * verdict.estimate))], "", point.style.ink)
    drawing.text(
        x + 8, y(factor * verdict.estimate) + 4, point.style.symbol, "small", point.style.ink
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
    elif entry.unit == "%":  # a difference of percentages is no percentage
        text = f"{'+' if shift > 0 else ''}{number(shift)} points"
    else:
        text = ("+" if shift > 0 else "") + with_unit(shift, entry.unit)
    return ChangePoint(index, p, text)


def _p_value(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> float:
    one, two = ([value for run in side for value in run] for side in (before, after))
    if not one or not two or len({*one, *two}) == 1:
        return 1.0
    return float(mannwhitneyu(one, two, alternative="two-sided", method="auto").pvalue)
