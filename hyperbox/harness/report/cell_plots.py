"""A cell's figures: blocks in run order, distributions of the arms, spread over starts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from hyperbox.harness.report.drawing import Drawing, Scale, fitted
from hyperbox.harness.report.matrix import BlockValue, MatrixEntry
from hyperbox.harness.report.plots import drawable, near_limits, scale_of, tick_labels
from hyperbox.harness.verdicts.wording import number, relative_interval

__all__ = ["cell_figure"]

_WIDTH, _HEIGHT = 900.0, 176.0
_FAR = 5.0  # relative spread beyond which a median is no scale: it lies near zero


@dataclass(frozen=True)
class _Box:
    """A panel's frame in pixels."""

    left: float
    top: float
    right: float
    bottom: float


_ORDER = _Box(58, 34, 358, 134)
_ECDF = _Box(408, 34, 640, 134)
_SPREAD = _Box(690, 34, 868, 134)


def cell_figure(entries: Sequence[MatrixEntry]) -> str:
    """Draw each gated metric of a cell, a row a gate: run order, ECDF of the arms, spread.

    Each row is an element of its own, so that paper is cut between them. Gives "" if no gate
    of the cell has two blocks: one alone has no shape. In run order, filled dots ran the
    baseline first and hollow ones the judged arm; grey ones came after the decision. The
    spread shows how the perturbed starts move each arm around its median.
    """
    return "".join(_row(entry) for entry in entries if len(entry.blocks) > 1)


def _row(entry: MatrixEntry) -> str:
    drawing = Drawing(_WIDTH, _HEIGHT)
    arms = _arm_values(entry)
    _draw_run_order(drawing, entry, entry.blocks)
    _draw_ecdf(drawing, entry, arms)
    _draw_spread(drawing, arms)
    where = f"{entry.gate.id} on {entry.column.label}"
    return drawing.svg(f"{where}: blocks in run order, distributions and spread")


def _draw_run_order(drawing: Drawing, entry: MatrixEntry, values: Sequence[BlockValue]) -> None:
    gate, factor, box = entry.gate, scale_of(entry.gate), _ORDER
    heights = [factor * value.value for value in values]
    verdict = drawable(entry)
    found = [verdict.estimate, verdict.low, verdict.high] if verdict else []
    shown = heights + [factor * value for value in found if value is not None]
    near, note = near_limits(entry, shown)
    shown += near
    y = Scale.around(shown, box.bottom, box.top, room=0.1)
    if not gate.is_paired and min(shown) >= 0:
        y = y.above_zero()
    x = Scale(0.4, max(value.block for value in values) + 1.6, box.left, box.right)
    judged = entry.verdict.n if entry.verdict else 0
    title = f"{entry.style.symbol} {gate.id}"
    room = _ECDF.left - box.left - 14
    drawing.text(box.left, 18, fitted(title, room, 13), "title", entry.style.ink)
    _draw_frame(drawing, box, x, y, entry)
    if verdict is not None and verdict.estimate is not None:
        last = values[min(judged, len(values)) - 1].block + 1.4
        if verdict.low is not None and verdict.high is not None:
            corners = (x(0.6), y(factor * verdict.low), x(last), y(factor * verdict.high))
            drawing.area(*corners, "range")
        middle = y(factor * verdict.estimate)
        drawing.line(x(0.6), middle, x(last), middle, "tuned")
    for limit in near:
        drawing.line(box.left, y(limit), box.right, y(limit), "limit")
    points = [(x(v.block + 1), y(h)) for v, h in zip(values, heights, strict=True)]
    drawing.path(points, "thin")
    drawing.dots(points[: judged or None], "tuned")
    drawing.dots(points[judged:] if judged else [], "base")
    if gate.is_paired:
        hollow = [p for p, v in zip(points, values, strict=True) if not v.baseline_first]
        drawing.dots(hollow, "hole")
    what = "change" if gate.is_ratio else "difference" if gate.is_paired else gate.metric
    unit = f", {entry.unit}," if entry.unit not in ("", "1", "%") else ""
    told = fitted(f"{_short(what, 18)}{unit} by block{note}", 400, 10.5)
    drawing.text((box.left + box.right) / 2, box.bottom + 32, told, "small mid")


def _draw_ecdf(
    drawing: Drawing, entry: MatrixEntry, arms: Sequence[tuple[str, list[float]]]
) -> None:
    box = _ECDF
    shown = [value for _, values in arms for value in values]
    x = Scale.around(shown, box.left, box.right)
    if min(shown, default=-1.0) >= 0:
        x = x.above_zero()
    y = Scale(0, 1, box.bottom, box.top)
    _draw_frame(drawing, box, x, y, None)
    drawing.text(box.left - 6, box.top + 4, "1", "small end")
    drawing.text(box.left - 6, box.bottom + 4, "0", "small end")
    for place, (name, values) in enumerate(arms):
        css = _arm_css(place, len(arms))
        ranked = enumerate(sorted(values), start=1)
        points = [(x(value), y(rank / len(values))) for rank, value in ranked]
        drawing.steps([(box.left, box.bottom), *points, (box.right, box.top)], css)
        start = box.left + place * 72
        drawing.line(start, 14, start + 16, 14, css)
        drawing.text(start + 20, 18, _short(name), "small")
    unit = entry.metric.unit if entry.metric and entry.metric.unit not in ("", "1") else ""
    name = f"share of blocks ≤ {_short(entry.gate.metric, 18)}{f', {unit}' if unit else ''}"
    drawing.text((box.left + box.right) / 2, box.bottom + 32, name, "small mid")


def _draw_spread(drawing: Drawing, arms: Sequence[tuple[str, list[float]]]) -> None:
    """Draw each arm's blocks around the arm's median, in percent of it."""
    box = _SPREAD
    spreads = []
    for name, values in arms:
        middle = statistics.median(values)
        fractions = [value / middle - 1 for value in values] if middle > 0 else []
        if any(abs(fraction) > _FAR for fraction in fractions):
            fractions = []
        spreads.append((name, fractions, values))
    x = Scale.around(
        [100 * value for _, fractions, _ in spreads for value in fractions], box.left, box.right
    )
    if any(fractions for _, fractions, _ in spreads):
        _draw_frame(drawing, box, x, None, None)
    height = (box.bottom - box.top) / len(spreads)
    for place, (name, fractions, values) in enumerate(spreads):
        y = box.top + height * (place + 0.62)
        drawing.text(
            box.left, y - 14, f"{_short(name, 16)}  {_spread_text(fractions, values)}", "small"
        )
        drawing.ticks(
            [x(100 * value) for value in fractions], y - 7, y + 7, _arm_css(place, len(arms))
        )
    drawing.text(
        (box.left + box.right) / 2,
        box.bottom + 32,
        "starts around the arm's median",
        "small mid",
    )


def _spread_text(fractions: Sequence[float], values: Sequence[float]) -> str:
    if min(values) == max(values):
        return "all alike" if len(values) > 1 else "one block"
    if not fractions:
        return f"{number(min(values))} … {number(max(values))}"
    told = relative_interval(0.0, min(fractions), max(fractions))  # both with the same decimals
    return f"{told[told.index('(') + 1 : -1]} %"


def _draw_frame(
    drawing: Drawing, box: _Box, x: Scale, y: Scale | None, entry: MatrixEntry | None
) -> None:
    """Draw the axes; with `entry`, x counts blocks and y is in the gate's terms."""
    drawing.line(box.left, box.bottom, box.right, box.bottom, "axis")
    for value in x.ticks(8 if entry else 3):
        if entry and (value < 1 or value % 1):
            continue
        drawing.line(x(value), box.bottom, x(value), box.bottom + 3, "axis")
        label = f"{value:g}" if entry else _brief(value)
        if box is _SPREAD and value:
            label = f"{value:+g} %"
        drawing.text(x(value), box.bottom + 15, label, "small mid")
    if entry and y:
        ticks = y.ticks(4)
        for value, label in zip(ticks, tick_labels(entry, ticks), strict=True):
            drawing.line(box.left, y(value), box.right, y(value), "grid")
            drawing.text(box.left - 6, y(value) + 4, label, "small end")


def _brief(value: float) -> str:
    """Return the label of a tick in little room: 20M, 16k, 0.03."""
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _arm_values(entry: MatrixEntry) -> list[tuple[str, list[float]]]:
    """Return the values of the gate's arms, baseline first, in block order."""
    gate, cell = entry.gate, entry.cell
    assert cell is not None
    arms = [arm for arm in (gate.baseline, gate.arm) if arm]
    values: dict[str, list[float]] = {arm: [] for arm in arms}
    for sample in cell.samples:
        if sample.metric == gate.metric and sample.arm in values:
            values[sample.arm].append(sample.value)
    return [(arm, found) for arm, found in values.items() if found]


def _arm_css(place: int, arms: int) -> str:
    return "base dash" if arms > 1 and place == 0 else "tuned"


def _short(name: str, most: int = 9) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
