"""The figures that speak for the whole run: forest plots and the heat map. SVG text out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hyperbox.harness.model import Gate, Rule, Verdict
from hyperbox.harness.report.drawing import Drawing, Scale, fitted, text_width
from hyperbox.harness.report.matrix import MatrixEntry
from hyperbox.harness.verdicts.wording import number

__all__ = [
    "axis_title",
    "drawable",
    "forest_plot",
    "heat_map",
    "higher_is_good",
    "limits_drawn",
    "near_limits",
    "scale_of",
    "tick_labels",
]

_WIDTH = 900.0
_ROW = 26.0
_TOLD = (280.0, 440.0)  # room for the verdict beside a row
_THOUSANDS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_NAME = 180.0  # room for a kernel's name
_GATE = 330.0  # and for a gate's
_LABELLED_TILES = 12  # beyond so many columns a tile holds its symbol only


def forest_plot(rows: Sequence[MatrixEntry]) -> str:
    """Draw estimate and interval of one gate on every kernel against its target.

    The good side of the limit is shaded (darker: the target band); faint ticks are single
    blocks. Gives "" if nothing was measured.
    """
    if not any(drawable(entry) for entry in rows):
        return ""
    left = 28 + min(_NAME, max(text_width(entry.column.label) for entry in rows))
    told = 24 + max(text_width(_told(entry)) for entry in rows)
    drawing = Drawing(_WIDTH, 62 + _ROW * len(rows))
    scale = _forest_scale(rows, left, _WIDTH - min(max(told, _TOLD[0]), _TOLD[1]))
    top, bottom = 20.0, 20 + _ROW * len(rows)
    _draw_target(drawing, rows[0], scale, top, bottom)
    for place, entry in enumerate(rows):
        _draw_estimate(drawing, entry, scale, top + _ROW * (place + 0.5))
    _draw_axis(drawing, rows[0], scale, bottom)
    gate = rows[0].gate
    said = [f"{e.column.label} {e.style.word} {e.estimate_text}".rstrip() for e in rows[:12]]
    more = f" and {len(rows) - 12} more" if len(rows) > 12 else ""
    label = f"{gate.id}, limit {rows[0].limit_text}: {', '.join(said)}{more}"
    return drawing.svg(label, "forest")


def heat_map(matrix: Sequence[MatrixEntry]) -> str:
    """Draw the outcome of every gate on every kernel; untested cells are hatched."""
    columns = list(dict.fromkeys(entry.column for entry in matrix))
    gates = list(dict.fromkeys(entry.gate.id for entry in matrix))
    if not columns or not gates:
        return ""
    told = len(columns) <= _LABELLED_TILES
    names = {column: fitted(column.label, _NAME) for column in columns}
    left = 12 + min(_GATE, max(text_width(gate, 11.5) for gate in gates))
    side = max(16.0, min(26.0, (_WIDTH - left) / len(columns)))
    width, height = (100.0, 32.0) if told else (side, min(side, 20.0))
    labels = max(text_width(name) for name in names.values())
    top = 24.0 if labels < width else 20 + 0.77 * labels
    beyond = 0.0 if labels < width else 0.6 * labels
    drawing = Drawing(left + width * len(columns) + 20 + beyond, top + height * len(gates) + 6)
    drawing.raw(
        '<defs><pattern id="untested" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/>'
        '<rect width="1.2" height="6" fill="#8a8a8a"/></pattern></defs>'
    )
    for place, column in enumerate(columns):
        middle = left + width * (place + 0.5)
        if labels < width:
            drawing.text(middle, top - 8, names[column], "mid")
        else:
            drawing.slanted(middle + 3, top - 5, names[column], "small")
    for place, name in enumerate(gates):
        y = top + height * (place + 0.5) + 4
        drawing.text(left - 8, y, fitted(name, left - 12, 11.5), "end")
    where = {column: place for place, column in enumerate(columns)}
    rows = {name: place for place, name in enumerate(gates)}
    for entry in matrix:
        x, y = left + width * where[entry.column], top + height * rows[entry.gate.id]
        _draw_tile(drawing, entry, (x, y, width, height), told=told)
    return drawing.svg(f"Outcome of {len(gates)} gates on {len(columns)} kernels")


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


def _tick(value: float, sign: str, decimals: int | None) -> str:
    if abs(value) >= 1e4:
        return number(value)
    return f"{value:{sign}g}" if decimals is None else f"{value:{sign}.{decimals}f}"


def _forest_scale(rows: Sequence[MatrixEntry], start: float, end: float) -> Scale:
    factor = scale_of(rows[0].gate)
    values = list(limits_drawn(rows[0]))
    if rows[0].gate.is_paired:
        values.append(0.0)
    for entry in rows:
        verdict = drawable(entry)
        if verdict is not None:
            ends = (verdict.estimate, verdict.low, verdict.high)
            values += [factor * value for value in ends if value is not None]
            values += [factor * value for value in _blocks(entry) if math.isfinite(value)]
    around = Scale.around(values, start, end)
    if rows[0].gate.is_paired or min(values) < 0:
        return around
    return replace(around, low=-0.04 * around.high)  # levels: from zero on


def _told(entry: MatrixEntry) -> str:
    """Return what stands beside a row: outcome, estimate and interval."""
    told = f"{entry.style.symbol} {entry.style.word}"
    if drawable(entry) is None:
        return told
    interval = f" ({entry.interval_text})" if entry.interval_text else ""
    return f"{told}  {entry.estimate_text}{interval}"


def _blocks(entry: MatrixEntry) -> list[float]:
    return [value.value for value in entry.blocks]


def _draw_estimate(drawing: Drawing, entry: MatrixEntry, scale: Scale, y: float) -> None:
    verdict, style, factor = drawable(entry), entry.style, scale_of(entry.gate)
    drawing.text(scale.start - 10, y + 4, fitted(entry.column.label, _NAME), "end")
    if verdict is not None and verdict.estimate is not None:
        drawing.ticks([scale(factor * value) for value in _blocks(entry)], y - 5, y + 5, "tick")
        if verdict.low is not None and verdict.high is not None:
            low, high = scale(factor * verdict.low), scale(factor * verdict.high)
            drawing.area(low, y - 1.5, high, y + 1.5, fill=style.ink)
        _draw_mark(drawing, entry, scale(factor * verdict.estimate), y)
    drawing.text(scale.end + 12, y + 4, _told(entry), "told", style.ink)


def _draw_mark(drawing: Drawing, entry: MatrixEntry, x: float, y: float) -> None:
    """Draw the outcome's own shape: circle, cross, diamond, square."""
    style = entry.style
    shapes = {
        "o": f"M{x - 5:.1f} {y:.1f}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
        "D": f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z",
        "X": f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10",
    }
    square = f"M{x - 4.5:.1f} {y - 4.5:.1f}h9v9h-9z"
    width = 3.4 if style.marker == "X" else 1.2
    ink = style.fill if style.marker == "X" else style.ink
    drawing.raw(
        f'<path d="{shapes.get(style.marker, square)}" '
        f'style="fill:{style.fill};stroke:{ink};stroke-width:{width}"/>'
    )


def _draw_target(
    drawing: Drawing, entry: MatrixEntry, scale: Scale, top: float, bottom: float
) -> None:
    """Shade the good side, the band within it, and name the limit."""
    gate, factor = entry.gate, scale_of(entry.gate)
    limit = scale(factor * entry.limit)
    low, high = (None if edge is None else scale(factor * edge) for edge in entry.limits)
    left = scale.start if low is None else low
    drawing.area(left, top, scale.end if high is None else high, bottom, "good")
    if gate.band_upper is not None:
        end = scale(-factor * gate.band_upper if gate.is_ratio else gate.band_upper)
        drawing.area(limit, top, min(max(end, scale.start), scale.end), bottom, "band")
    if gate.is_paired and scale.low < 0 < scale.high:
        drawing.line(scale(0), top, scale(0), bottom, "thin")
    for edge in limits_drawn(entry):
        drawing.line(scale(edge), top - 2, scale(edge), bottom, "limit")
    right = limit > (scale.start + scale.end) / 2
    drawing.text(limit, top - 6, f"limit {entry.limit_text}", "small end" if right else "small")


def _draw_axis(drawing: Drawing, entry: MatrixEntry, scale: Scale, y: float) -> None:
    drawing.line(scale.start, y, scale.end, y, "axis")
    ticks = scale.ticks(6)
    for value, label in zip(ticks, tick_labels(entry, ticks), strict=True):
        drawing.line(scale(value), y, scale(value), y + 4, "axis")
        drawing.text(scale(value), y + 16, label, "small mid")
    drawing.text((scale.start + scale.end) / 2, y + 34, axis_title(entry), "mid what")


def _draw_tile(
    drawing: Drawing, entry: MatrixEntry, box: tuple[float, float, float, float], *, told: bool
) -> None:
    x, y, width, height = box
    style = entry.style
    gap = 1.5 if told else 0.75
    untested = entry.verdict is None
    fill = "url(#untested)" if untested else style.fill
    drawing.area(x + gap, y + gap, x + width - gap, y + height - gap, fill=fill)
    if untested:
        return
    if style.word == "FAIL":  # on paper without colour its grey is that of PASS: a frame tells
        frame = (
            f"{x + gap + 1:.1f}",
            f"{y + gap + 1:.1f}",
            width - 2 * gap - 2,
            height - 2 * gap - 2,
        )
        drawing.raw(
            '<rect class="fail" x="{}" y="{}" width="{:.1f}" height="{:.1f}"/>'.format(*frame)
        )
    text = style.symbol
    if told:
        found = entry.estimate_text or style.word.lower()
        texts = (f"{text} {found}", f"{text} {found.removesuffix(f' {entry.unit}')}", text)
        text = next(one for one in texts if one == text or text_width(one) < width - 4)
    colour = "#fff" if style.word == "ERROR" else "#111"
    drawing.text(x + width / 2, y + height / 2 + 4, text, "mid" if told else "small mid", colour)
