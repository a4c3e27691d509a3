"""The report's figures: forest plots, heat map, blocks in run order. SVG text out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hyperbox.harness.model import Gate, Outcome, Rule, Verdict
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.report.marks import BASELINE, MARKS, TUNED
from hyperbox.harness.report.matrix import BlockValue, Entry, block_values, entries, kernel_labels
from hyperbox.harness.report.svg import inline_svg, plot_style
from hyperbox.harness.verdicts.wording import legible, number, typeset

__all__ = ["forest_plot", "heat_map", "run_order_plot"]

_WIDTH = 8.2
_GOOD = MARKS[Outcome.PASS].fill


def forest_plot(run: RunData, gate: Gate) -> str:
    """Draw estimate and interval of a gate on every kernel against its target.

    The good side of the limit is shaded (darker: the target band); faint dots are single
    blocks. Gives "" if nothing was measured.
    """
    matrix = [entry for entry in entries(run) if entry.gate == gate]
    if not any(_drawable(entry) for entry in matrix):
        return ""
    cells = {cell.cell.kernel: cell for cell in run.cells if cell.experiment.id == gate.experiment}
    with plot_style():
        figure = Figure(figsize=(_WIDTH, 0.95 + 0.36 * len(matrix)), layout="constrained")
        axes = figure.add_subplot()
        rows = range(len(matrix))
        for row, entry in zip(rows, matrix, strict=True):
            _draw_estimate(axes, row, entry, cells.get(entry.kernel))
        axes.set_yticks(rows, [legible(entry.kernel) for entry in matrix])
        axes.set_ylim(len(matrix) - 0.5, -0.5)
        axes.tick_params("y", length=0)
        axes.spines["left"].set_visible(False)
        _draw_target(axes, matrix[0])
        axes.set_xlabel(_axis_title(matrix[0]))
        axes.xaxis.set_major_formatter(_tick_formatter(gate))
        axes.xaxis.set_major_locator(MaxNLocator(6))
    label = f"{gate.id} on {len(matrix)} kernels: estimates and intervals against the target"
    return inline_svg(figure, f"forest-{gate.id}", label)


def heat_map(run: RunData) -> str:
    """Draw the outcome of every gate on every kernel; untested cells are hatched."""
    kernels, gates = kernel_labels(run), run.gates
    if not kernels or not gates:
        return ""
    with plot_style():
        height = 0.5 + 0.42 * len(gates)
        width = max(4.0, min(14.0, 2.4 + 1.15 * len(kernels)))
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        for entry in entries(run):
            _draw_tile(axes, kernels.index(entry.kernel), gates.index(entry.gate), entry)
        axes.set_xlim(-0.5, len(kernels) - 0.5)
        axes.set_ylim(len(gates) - 0.5, -0.5)
        axes.set_xticks(range(len(kernels)), [legible(kernel) for kernel in kernels])
        axes.set_yticks(range(len(gates)), [gate.id for gate in gates])
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    label = f"Outcome of {len(gates)} gates on {len(kernels)} kernels"
    return inline_svg(figure, "heat-map", label)


def run_order_plot(run: RunData, cell: CellData) -> str:
    """Draw every gated metric of a cell block by block, in the order of the run.

    Filled markers: the baseline ran first in that block; hollow: the judged arm did.
    Gives "" if no gate of the cell has a value.
    """
    drawn = []
    for entry in entries(run):
        if entry.kernel == cell.cell.kernel and entry.gate.experiment == cell.experiment.id:
            values = block_values(cell, entry.gate)
            if values:
                drawn.append((entry, values))
    if not drawn:
        return ""
    columns = min(3, len(drawn))
    lines = math.ceil(len(drawn) / columns)
    with plot_style():
        width = {1: 0.55, 2: 0.8, 3: 1.2}[columns] * _WIDTH
        figure = Figure(figsize=(width, 2.1 * lines), layout="constrained")
        for place, (entry, values) in enumerate(drawn, start=1):
            _draw_run_order(figure.add_subplot(lines, columns, place), entry, values)
    key = legible(cell.cell.key)
    return inline_svg(figure, f"order-{key}", f"{key}: blocks in run order")


def _draw_estimate(axes: Axes, row: int, entry: Entry, cell: CellData | None) -> None:
    verdict, mark, scale = _drawable(entry), entry.mark, _scale(entry.gate)
    if cell is not None:
        values = [scale * value.value for value in block_values(cell, entry.gate)]
        axes.plot(values, [row] * len(values), "|", color="#9a9a9a", ms=7, mew=0.8, zorder=2)
    told = f"{mark.symbol} {mark.word}"
    if verdict is not None and verdict.estimate is not None:
        if verdict.low is not None and verdict.high is not None:
            ends = [scale * verdict.low, scale * verdict.high]
            axes.plot(ends, [row, row], color=mark.ink, lw=2.4, solid_capstyle="butt", zorder=3)
        axes.plot(
            scale * verdict.estimate,
            row,
            mark.marker,
            color=mark.fill,
            mec=mark.ink,
            ms=8,
            zorder=4,
        )
        interval = f" ({entry.interval_text})" if entry.interval_text else ""
        told = f"{told}  {entry.estimate_text}{interval}"
    beside = axes.get_yaxis_transform()
    told = typeset(told)
    axes.text(1.02, row, told, color=mark.ink, transform=beside, va="center", clip_on=False)


def _draw_target(axes: Axes, entry: Entry) -> None:
    """Shade the good side, the band within it, and name the limit."""
    gate, scale = entry.gate, _scale(entry.gate)
    limit = scale * entry.limit
    shown = axes.dataLim.intervalx
    low, high = min(shown[0], limit), max(shown[1], limit)
    if gate.is_ratio:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.06 * (high - low) or max(abs(limit), 1.0)
    low, high = low - margin, high + margin
    axes.set_xlim(low, high)
    edge = high if _higher_is_good(gate, entry) else low
    axes.axvspan(limit, edge, color=_GOOD, alpha=0.10, lw=0, zorder=0)
    if gate.band_upper is not None:
        band_end = -scale * gate.band_upper if gate.is_ratio else gate.band_upper
        axes.axvspan(limit, band_end, color=_GOOD, alpha=0.22, lw=0, zorder=0)
    axes.axvline(limit, color="#222222", lw=1.1, ls=(0, (4, 2)), zorder=1)
    axes.annotate(
        typeset(f"limit {entry.limit_text}"),
        (limit, 1.0),
        (0, 3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="right" if limit > (low + high) / 2 else "left",
        fontsize=8,
        annotation_clip=False,
    )
    if gate.is_ratio:
        axes.axvline(0, color="#8a8a8a", lw=0.8, zorder=1)


def _draw_tile(axes: Axes, column: int, row: int, entry: Entry) -> None:
    mark = entry.mark
    untested = entry.verdict is None
    tile = Rectangle(
        (column - 0.47, row - 0.45),
        0.94,
        0.90,
        facecolor=mark.fill,
        edgecolor="#8a8a8a" if untested else "none",
        hatch="////" if untested else None,
        lw=0.6,
    )
    axes.add_patch(tile)
    colour = "white" if mark.word == "ERROR" else "#111111"
    told = "" if untested else mark.symbol
    if entry.estimate_text:
        told = f"{told} {entry.estimate_text}"
    elif not untested:
        told = f"{told} {mark.word.lower()}"
    axes.text(column, row, typeset(told), ha="center", va="center", color=colour, fontsize=8)


def _draw_run_order(axes: Axes, entry: Entry, values: Sequence[BlockValue]) -> None:
    gate, scale = entry.gate, _scale(entry.gate)
    blocks = [value.block + 1 for value in values]
    heights = [scale * value.value for value in values]
    judged = entry.verdict.n if entry.verdict else 0
    if judged:
        _draw_finding(axes, entry, (0.5, blocks[min(judged, len(blocks)) - 1] + 0.5))
    axes.plot(blocks, heights, color=BASELINE, lw=0.7, zorder=2)
    for place, value in enumerate(values):
        ink = TUNED if place < judged or not judged else BASELINE
        face = "white" if gate.is_ratio and not value.baseline_first else ink
        axes.plot(blocks[place], heights[place], "o", mfc=face, mec=ink, ms=5, mew=1.2, zorder=3)
    axes.margins(y=0.15)
    if min(heights) == max(heights):
        room = abs(heights[0]) * 0.05 or 1.0
        axes.set_ylim(heights[0] - room, heights[0] + room)
    axes.set_xlabel(f"block{_draw_limit(axes, entry)}")
    axes.set_title(f"{entry.mark.symbol} {gate.id}", loc="left", color=entry.mark.ink)
    axes.set_ylabel("change" if gate.is_ratio else entry.unit.removeprefix("1"))
    axes.set_xlim(0.5, max(blocks) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_formatter(_tick_formatter(gate))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _draw_finding(axes: Axes, entry: Entry, span: tuple[float, float]) -> None:
    """Draw estimate and interval over the blocks that the verdict looked at."""
    verdict, scale = _drawable(entry), _scale(entry.gate)
    if verdict is None or verdict.estimate is None:
        return
    axes.plot(span, [scale * verdict.estimate] * 2, color=TUNED, lw=1.2)
    if verdict.low is not None and verdict.high is not None:
        low, high = scale * verdict.low, scale * verdict.high
        axes.fill_between(span, low, high, color=TUNED, alpha=0.15, lw=0)


def _draw_limit(axes: Axes, entry: Entry) -> str:
    """Draw the limit, or give a note if showing it would flatten the blocks."""
    limit = _scale(entry.gate) * entry.limit
    low, high = axes.get_ylim()
    reach = 2 * (high - low)
    if low - reach <= limit <= high + reach:
        axes.axhline(limit, color="#222222", lw=1.1, ls=(0, (4, 2)))
        return ""
    where = "above" if limit > high else "below"
    return typeset(f" (limit {entry.limit_text} lies {where})")


def _drawable(entry: Entry) -> Verdict | None:
    """Give the entry's verdict if it has an estimate and all its numbers fit on an axis."""
    verdict = entry.verdict
    if verdict is None or verdict.estimate is None:
        return None
    numbers = (verdict.estimate, verdict.low or 0.0, verdict.high or 0.0)
    return verdict if all(math.isfinite(value) for value in numbers) else None


def _scale(gate: Gate) -> float:
    """Ratio rules are drawn in percent."""
    return 100.0 if gate.is_ratio else 1.0


def _higher_is_good(gate: Gate, entry: Entry) -> bool:
    return gate.rule is Rule.AT_LEAST or (gate.rule is Rule.NON_INFERIOR and entry.limit < 0)


def _axis_title(entry: Entry) -> str:
    title = entry.metric.title if entry.metric else entry.gate.metric
    arrow = "better →" if _higher_is_good(entry.gate, entry) else "← better"
    if entry.gate.is_ratio:
        return f"{title}: {entry.gate.arm} against {entry.gate.baseline} ({arrow})"
    unit = f", {entry.unit}" if entry.unit not in ("", "1") else ""
    return f"{title}{unit} ({arrow})"


def _tick_formatter(gate: Gate) -> FuncFormatter:
    def told(value: float, _: int | None) -> str:
        if gate.is_ratio:
            return typeset(f"{value:+g} %") if value else "0"
        return typeset(f"{value:g}" if abs(value) < 1e4 else number(value))

    return FuncFormatter(told)
