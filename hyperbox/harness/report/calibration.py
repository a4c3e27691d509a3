"""The page of a calibration: error rates, power, the exact lane, real runs.

Self-contained like a run's report: no scripts, nothing to load.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.box import SIMPLE
from rich.console import JustifyMethod
from rich.table import Table

from hyperbox import files
from hyperbox.harness.calibration.evidence import Evidence
from hyperbox.harness.calibration.findings import Calibration, ExactCell, RuleRates
from hyperbox.harness.calibration.noise import SLOW
from hyperbox.harness.model import Lane, Outcome
from hyperbox.harness.report.calibration_runs import (
    evidence_plot,
    load_name,
    machine_name,
    resolved,
    starts_words,
)
from hyperbox.harness.report.outcome_styles import BASELINE, OUTCOME_STYLES, TUNED
from hyperbox.harness.report.svg import inline_svg, plot_style
from hyperbox.harness.report.templating import environment
from hyperbox.harness.statistics.design import ALPHA, LOOK_ALPHA, LOOKS
from hyperbox.harness.statistics.proportions import CONFIDENCE, Rate
from hyperbox.harness.verdicts.wording import relative, relative_interval, typeset
from hyperbox.printing import legible

__all__ = ["calibration_page", "calibration_table", "percent", "write_calibration"]

_PASS, _FAIL = OUTCOME_STYLES[Outcome.PASS].ink, OUTCOME_STYLES[Outcome.FAIL].ink
_SIDE_BY_SIDE = ("non_inferior", Lane.KVM)
_ROWS_A_FIGURE = 36
_LOOK_COLOURS = ("#56b4e9", "#0072b2", "#cc79a7", "#222222")
_LOOK_STYLES = (":", "-.", "--", "-")


def write_calibration(found: Calibration, directory: Path) -> tuple[Path, ...]:
    """Write ``calibration.json`` and ``calibration.html`` and give their paths."""
    data, page = directory / "calibration.json", directory / "calibration.html"
    files.write_json(data, found.document())
    files.write_text(page, calibration_page(found))
    return data, page


def calibration_page(found: Calibration) -> str:
    """Return the page: HTML5 with inline SVG."""
    pages = environment()
    pages.filters |= {"percent": percent, "relative": relative, "legible": legible}
    promised = [row for row in found.rows if row.promised]
    others = [row for row in found.rows if not row.promised]
    outcome = Outcome.FAIL if found.broken_promises else Outcome.PASS
    return pages.get_template("calibration.html.j2").render(
        found=found,
        outcome=outcome,
        style=OUTCOME_STYLES[outcome],
        promised=promised,
        others=others,
        slow=_slow(found.rows),
        errors_plots=_errors_plots(promised, "errors-promised"),
        others_plots=_errors_plots(others, "errors-others"),
        power_plots=[(rule, _power_plot(rule, promised)) for rule in _rules(promised)],
        exact=_exact_table(found.exact),
        looks=LOOKS,
        alpha=ALPHA,
        look_alpha=LOOK_ALPHA,
        confidence=CONFIDENCE,
        found_planted=_found_planted,
        evidence_plot=evidence_plot,
        load_name=load_name,
        machine_name=machine_name,
        relative_interval=relative_interval,
        resolved=resolved,
        starts_words=starts_words,
    )


def calibration_table(found: Calibration) -> Table:
    """Return the error rates as a table for the terminal."""
    table = Table(
        title="Wrong verdicts at the limit in %: rate < 99 % bound",
        box=SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("rule", "noise", "PASS", "FAIL", "kept"):
        justify: JustifyMethod = "left" if name in ("rule", "noise") else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for row in found.rows:
        said = ("yes" if row.kept else "NO") if row.promised else "-"
        table.add_row(
            _rule_name(row),
            row.noise,
            _rate_text(row.false_pass),
            _rate_text(row.false_fail),
            said,
            style="" if row.promised else "dim",
        )
    return table


def percent(share: float) -> str:
    """Return a share as a percentage: two digits below 10 %, whole numbers from there."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2f} %"


def _rate_text(rate: Rate) -> str:
    rates = (100 * rate.rate, 100 * rate.upper)
    return " < ".join(f"{share:.2f}" if share < 10 else f"{share:.1f}" for share in rates)


def _rule_name(row: RuleRates) -> str:
    name = f"{row.rule} {100 * row.margin:g} %" if row.rule == "within" else row.rule
    return f"{name}, exact" if row.lane is Lane.EXACT else name


def _rules(rows: Sequence[RuleRates]) -> list[str]:
    return list(dict.fromkeys(_rule_name(row) for row in rows))


def _slow(rows: Sequence[RuleRates]) -> list[tuple[str, list[RuleRates]]]:
    """Return what is slow, side by side: of the machine, the blocks measured, all time."""
    judged = {row.noise: row for row in rows if (row.rule, row.lane) == _SIDE_BY_SIDE}
    return [
        (what, [judged[noise] for noise in noises])
        for what, noises in SLOW.items()
        if all(noise in judged for noise in noises)
    ]


def _found_planted(evidence: Evidence) -> str:
    found = sum(1 for effect in evidence.planted if effect.found)
    return f"{found} of {len(evidence.planted)}"


def _errors_plots(rows: Sequence[RuleRates], name: str) -> list[str]:
    """Draw both error rates of each row with their bounds, against the promise.

    Rules stay together, in figures that fit on a sheet of paper, all on one scale.
    """
    groups: list[list[RuleRates]] = []
    for _, rule in itertools.groupby(rows, key=_rule_name):
        found = list(rule)
        if groups and len(groups[-1]) + len(found) <= _ROWS_A_FIGURE:
            groups[-1] += found
        else:
            groups.append(found)
    largest = max(
        (rate.upper for row in rows for rate in (row.false_pass, row.false_fail)), default=0.0
    )
    end = 1.06 * max(ALPHA, largest)
    return [_errors_plot(found, f"{name}-{at}", end) for at, found in enumerate(groups)]


def _errors_plot(rows: Sequence[RuleRates], name: str, end: float) -> str:
    with plot_style():
        figure = Figure(figsize=(8.2, 0.8 + 0.2 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            _draw_rate(axes, place - 0.14, row.false_pass, _PASS, "o")
            _draw_rate(axes, place + 0.14, row.false_fail, _FAIL, "X")
        axes.axvline(ALPHA, color="#222222", lw=1.1, ls=(0, (4, 2)))
        axes.annotate(
            typeset("promise 2.5 %"),
            (ALPHA, 1.0),
            (0, 3),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            annotation_clip=False,
        )
        names = [f"{_rule_name(row)}, {row.noise}" for row in rows]
        axes.set_yticks(range(len(rows)), [typeset(text) for text in names], fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params("y", length=0)
        axes.set_xlim(0, end)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol="\N{NO-BREAK SPACE}%"))
        axes.set_xlabel("wrong PASS (disc) and wrong FAIL (cross) at the limit, with bounds")
    return inline_svg(figure, name, "Error rates with bounds against the promise of 2.5 %")


def _draw_rate(axes: Axes, height: float, rate: Rate, colour: str, marker: str) -> None:
    axes.plot([rate.lower, rate.upper], [height] * 2, color=colour, lw=1.6, solid_capstyle="butt")
    axes.plot(rate.rate, height, marker, color=colour, ms=4)


def _power_plot(rule: str, rows: Sequence[RuleRates]) -> str:
    """Draw the chance of the right verdict by distance from the limit, for each last look."""
    chosen = [row for row in rows if _rule_name(row) == rule]
    columns = min(5, len(chosen))
    lines = -(-len(chosen) // columns)
    with plot_style():
        figure = Figure(figsize=(8.2, 1.75 * lines + 0.3), layout="constrained")
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axes, row in zip(grid.flat, chosen, strict=False):
            _draw_power(axes, row)
        for axes in grid.flat[len(chosen) :]:
            axes.set_visible(False)
        figure.supxlabel("distance of the truth from the limit, in deviations (right: good side)")
        handles = grid.flat[0].get_lines()[: len(LOOKS)]
        figure.legend(
            handles,
            [f"up to {look} blocks" for look in LOOKS],
            loc="outside upper center",
            ncols=len(LOOKS),
            frameon=False,
        )
    return inline_svg(figure, f"power-{rule}", f"Power of {rule} by effect and blocks")


def _draw_power(axes: Axes, row: RuleRates) -> None:
    cells = sorted(row.cells, key=lambda cell: cell.effect)
    for look, (colour, style) in enumerate(zip(_LOOK_COLOURS, _LOOK_STYLES, strict=True)):
        bad = [(cell.effect, cell.decided(look).rate) for cell in cells if cell.effect < 0]
        good = [(cell.effect, cell.decided(look).rate) for cell in cells if cell.effect > 0]
        # One line in two halves; nothing is right at the limit itself.
        gap = [(0.0, float("nan"))]
        effects, shares = zip(*bad, *gap, *good, strict=True)
        axes.plot(effects, shares, color=colour, ls=style, lw=1.3)
    axes.axhline(0.8, color=BASELINE, lw=0.6)
    axes.axvline(0, color=TUNED, lw=0.6)
    axes.set_title(row.noise, loc="left", fontsize=8)
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))


def _exact_table(cells: Sequence[ExactCell]) -> list[tuple[float, list[ExactCell]]]:
    spreads = list(dict.fromkeys(cell.spread for cell in cells))
    return [(spread, [cell for cell in cells if cell.spread == spread]) for spread in spreads]
