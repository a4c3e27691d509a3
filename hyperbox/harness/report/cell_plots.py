"""A cell's figures: blocks in run order, distributions of the arms, spread over starts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyperbox.harness.report.axes import (
    PT,
    Panel,
    add_panel,
    drawable,
    figure_of,
    fitted,
    near_limits,
    one_line,
    round_ticks,
    scale_of,
    span,
    text_width,
    tick_labels,
    without_negative,
)
from hyperbox.harness.report.matrix import BlockValue, MatrixEntry
from hyperbox.harness.report.outcome_styles import BASELINE, TUNED
from hyperbox.harness.report.svg import SOFT, inline_svg, plot_style
from hyperbox.harness.verdicts.wording import number, relative_interval

__all__ = ["cell_figure"]

_WIDTH, _HEIGHT = 900.0, 176.0
_ORDER = Panel(58, 34, 358, 134)
_ECDF = Panel(408, 34, 640, 134)
_SPREAD = Panel(690, 34, 868, 134)
_SMALL = 10.5 * PT
_FAR = 5.0  # relative spread beyond which a median is not a scale: it lies near zero

_Arms = Sequence[tuple[str, list[float]]]


def cell_figure(entries: Sequence[MatrixEntry]) -> str:
    """Draw each gated metric of a cell, a row a gate: run order, ECDF of the arms, spread.

    Each row is an element of its own, so that paper is cut between them. Return "" if no gate
    of the cell has two blocks: one alone has no shape. In run order, filled dots ran the
    baseline first and hollow ones the judged arm; grey ones came after the decision. The
    spread shows how the perturbed starts move each arm around its median.
    """
    return "".join(_row(entry) for entry in entries if len(entry.blocks) > 1)


def _row(entry: MatrixEntry) -> str:
    arms = _arm_values(entry)
    with plot_style():
        figure = figure_of(_WIDTH, _HEIGHT)
        _draw_run_order(figure, entry, entry.blocks)
        _draw_ecdf(figure, entry, arms)
        _draw_spread(figure, arms)
    where = f"{entry.gate.id} on {entry.column.label}"
    name = f"cell-{entry.gate.id}-{entry.cell.cell.key if entry.cell else ''}"
    return inline_svg(figure, name, f"{where}: blocks in run order, distributions and spread")


def _draw_run_order(figure: Figure, entry: MatrixEntry, values: Sequence[BlockValue]) -> None:
    gate, factor = entry.gate, scale_of(entry.gate)
    heights = [factor * value.value for value in values]
    verdict = drawable(entry)
    found = [verdict.estimate, verdict.low, verdict.high] if verdict else []
    shown = heights + [factor * value for value in found if value is not None]
    near, note = near_limits(entry, shown)
    shown += near
    ends = span(shown, room=0.1)
    if not gate.is_paired and min(shown) >= 0:
        ends = without_negative(ends)
    last = max(value.block for value in values) + 1.6
    axes = add_panel(figure, _ORDER, x=(0.4, last))
    axes.set_ylim(*ends)
    axes.set_xticks([tick for tick in round_ticks((0.4, last), 8) if tick >= 1 and not tick % 1])
    ticks = round_ticks(ends, 4)
    axes.set_yticks(ticks, [one_line(label) for label in tick_labels(entry, ticks)])
    axes.tick_params("y", labelsize=_SMALL)
    axes.grid(axis="y", color="#e3e6ea", lw=0.6)
    axes.set_axisbelow(True)
    for limit in near:
        axes.axhline(limit, color="#222222", lw=0.9, ls=(0, (4, 2.5)), clip_on=False)
    judged = entry.verdict.n if entry.verdict else 0
    if verdict is not None and verdict.estimate is not None:
        _draw_decided(axes, entry, values[min(judged, len(values)) - 1].block + 1.4)
    _draw_blocks(axes, entry, [value.block + 1 for value in values], heights)
    room = _ECDF.left - _ORDER.left - 14
    title = fitted(f"{entry.style.symbol} {gate.id}", room, 13)
    axes.set_title(title, loc="left", color=entry.style.ink, pad=11, weight="bold")
    what = "change" if gate.is_ratio else "difference" if gate.is_paired else gate.metric
    unit = f", {entry.unit}," if entry.unit not in ("", "1", "%") else ""
    _name_axis(axes, fitted(f"{_short(what, 18)}{unit} by block{note}", 400, 10.5))


def _draw_decided(axes: Axes, entry: MatrixEntry, last: float) -> None:
    """Draw estimate and interval over the blocks that were looked at."""
    verdict, factor = entry.verdict, scale_of(entry.gate)
    assert verdict is not None
    assert verdict.estimate is not None
    across, middle = (0.6, last), factor * verdict.estimate
    if verdict.low is not None and verdict.high is not None:
        low, high = factor * verdict.low, factor * verdict.high
        axes.fill_between(across, low, high, color=TUNED, alpha=0.14, lw=0)
    axes.plot(across, (middle, middle), color=TUNED, lw=1.6 * PT)


def _draw_blocks(
    axes: Axes, entry: MatrixEntry, places: Sequence[float], heights: Sequence[float]
) -> None:
    judged = entry.verdict.n if entry.verdict else len(heights)
    axes.plot(places, heights, color="#9a9a9a", lw=0.8 * PT)
    for colour, chosen in (
        (TUNED, slice(0, judged or None)),
        (BASELINE, slice(judged or len(heights), None)),
    ):
        hollow = [entry.gate.is_paired and not v.baseline_first for v in entry.blocks[chosen]]
        for inside, wanted in ((colour, False), ("white", True)):
            at = [place for place, hole in enumerate(hollow) if hole is wanted]
            axes.plot(
                [places[chosen][place] for place in at],
                [heights[chosen][place] for place in at],
                "o",
                ms=6.2 * PT,
                color=colour,
                mfc=inside,
                mew=1.2 * PT,
                clip_on=False,
            )


def _draw_ecdf(figure: Figure, entry: MatrixEntry, arms: _Arms) -> None:
    shown = [value for _, values in arms for value in values]
    ends = span(shown)
    if min(shown, default=-1.0) >= 0:
        ends = without_negative(ends)
    axes = add_panel(figure, _ECDF, x=ends)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1], ["0", "1"], fontsize=_SMALL)
    _brief_ticks(axes)
    start, wide = 0.0, _ECDF.right - _ECDF.left
    for place, (name, values) in enumerate(arms):
        ranked = sorted(values)
        steps = [rank / len(ranked) for rank in range(1, len(ranked) + 1)]
        colour, dashes, width = _arm_line(place, len(arms))
        axes.step(
            [ends[0], *ranked, ends[1]],
            [0.0, *steps, 1.0],
            where="post",
            color=colour,
            ls=dashes,
            lw=width,
            clip_on=False,
        )
        key: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
        ends_at = (start / wide, (start + 16) / wide)
        axes.plot(ends_at, (1.2, 1.2), color=colour, ls=dashes, lw=width, **key)
        said = one_line(_short(name, 14))
        axes.text((start + 20) / wide, 1.165, said, fontsize=_SMALL, color=SOFT, **key)
        start += 32 + text_width(said, 10.5)
    unit = entry.metric.unit if entry.metric and entry.metric.unit not in ("", "1") else ""
    name = f"share of blocks ≤ {_short(entry.gate.metric, 18)}{f', {unit}' if unit else ''}"
    _name_axis(axes, fitted(name, 270, 10.5))


def _draw_spread(figure: Figure, arms: _Arms) -> None:
    """Draw each arm's blocks around the arm's median, in percent of it."""
    spreads = []
    for name, values in arms:
        middle = statistics.median(values)
        fractions = [value / middle - 1 for value in values] if middle > 0 else []
        if any(abs(fraction) > _FAR for fraction in fractions):
            fractions = []
        spreads.append((name, fractions, values))
    percents = [100 * value for _, fractions, _ in spreads for value in fractions]
    axes = add_panel(figure, _SPREAD, x=span(percents))
    axes.set_ylim(len(spreads), 0)
    if percents:
        ticks = round_ticks(axes.get_xlim(), 3)
        axes.set_xticks(ticks, [one_line(f"{tick:+g} %") if tick else "0" for tick in ticks])
    else:
        axes.spines["bottom"].set_visible(False)
    for place, (name, fractions, values) in enumerate(spreads):
        text = f"{_short(name, 16)}  {_spread_text(fractions, values)}"
        axes.text(
            0,
            place + 0.36,
            fitted(text, _WIDTH - _SPREAD.left - 4, 10.5),
            transform=axes.get_yaxis_transform(),
            fontsize=_SMALL,
            color=SOFT,
        )
        colour, _, width = _arm_line(place, len(arms))
        heights = [place + 0.64] * len(fractions)
        axes.plot(
            [100 * value for value in fractions],
            heights,
            "|",
            ms=14 * PT,
            mew=width,
            color=colour,
            clip_on=False,
        )
    _name_axis(axes, "starts around the arm's median")


def _spread_text(fractions: Sequence[float], values: Sequence[float]) -> str:
    if min(values) == max(values):
        return "all alike" if len(values) > 1 else "one block"
    if not fractions:
        return f"{number(min(values))} … {number(max(values))}"
    text = relative_interval(0.0, min(fractions), max(fractions))  # both with the same decimals
    return f"{text[text.index('(') + 1 : -1]} %"


def _brief_ticks(axes: Axes) -> None:
    ticks = round_ticks(axes.get_xlim(), 3)
    axes.set_xticks(ticks, [one_line(_brief(tick)) for tick in ticks])


def _name_axis(axes: Axes, name: str) -> None:
    axes.set_xlabel(one_line(name), fontsize=_SMALL, color=SOFT, labelpad=4)


def _brief(value: float) -> str:
    """Return the label of a tick in few letters: 20M, 16k, 0.03."""
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


def _arm_line(place: int, arms: int) -> tuple[str, str | tuple[int, tuple[float, ...]], float]:
    """Return colour, dashes and width of an arm's lines; the baseline is the first of two."""
    if arms > 1 and place == 0:
        return BASELINE, (0, (3.0, 1.6)), 1.4 * PT
    return TUNED, "-", 1.6 * PT


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
