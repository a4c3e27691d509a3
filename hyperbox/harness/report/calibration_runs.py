"""Real runs with known answers, as figure, sentence and table of the calibration page."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from rich.box import SIMPLE
from rich.table import Table

from hyperbox.harness.calibration.answers import ALARMS, PLANTED
from hyperbox.harness.calibration.evidence import Evidence, PlantedEffect, SameArms
from hyperbox.harness.model import Lane
from hyperbox.harness.report.outcome_styles import BASELINE
from hyperbox.harness.report.svg import inline_svg, plot_style
from hyperbox.harness.statistics.design import LOOKS
from hyperbox.harness.statistics.proportions import Rate
from hyperbox.harness.verdicts.wording import typeset
from hyperbox.printing import legible

__all__ = [
    "evidence_plot",
    "load_name",
    "machine_name",
    "planted_table",
    "resolved",
    "starts_words",
    "summary",
]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#222222", "#56b4e9")
_MARKERS = ("o", "s", "D", "^", "v", "P")
_FRAME = 3.0  # planted effects that fit on each side of 0


def load_name(gate: str) -> str:
    """Return what a gate with a known answer is about: its id without the prefix."""
    return legible(gate.removeprefix(ALARMS).removeprefix(PLANTED))


def machine_name(one: SameArms | PlantedEffect) -> str:
    """Return the kernel, and the lane where it is not the exact one."""
    return legible(one.kernel if one.lane == Lane.EXACT else f"{one.kernel}, {one.lane}")


def starts_words(effect: PlantedEffect) -> str:
    """Say how many starts the right verdict took or would take."""
    if effect.starts is None:
        return f"> {LOOKS[-1]}" if effect.right_by_look else ""
    return str(effect.starts) if effect.found else f"\N{ALMOST EQUAL TO} {effect.starts}"


def resolved(seen: Evidence) -> str:
    """Say which planted effects had the right verdict at the first look, on every kernel or not."""
    loads, others = [], []
    for load in _loads(seen.planted):
        found = [one for one in seen.planted if load_name(one.gate) == load]
        missing = [machine_name(one) for one in found if one.starts != LOOKS[0] or not one.found]
        if missing:
            others.append(f"{load} ({', '.join(missing)})")
        else:
            loads.append(load)
    words = f"resolved with {LOOKS[0]} starts on every kernel: {', '.join(loads) or 'none'}"
    return f"{words}; not: {', '.join(others)}" if others else words


def summary(seen: Evidence) -> str:
    """Return one line for the terminal."""
    found = sum(1 for effect in seen.planted if effect.found)
    return legible(
        f"run {seen.run}: wrong PASS {_told(seen.false_pass)}, "
        f"wrong FAIL {_told(seen.false_fail)}; {found} of {len(seen.planted)} "
        f"planted effects found; {resolved(seen)}"
    )


def planted_table(seen: Evidence) -> Table:
    """Return the planted effects for the terminal: starts by load and kernel."""
    kernels = _kernels(seen)
    table = Table(
        title="Starts until a planted effect is found",
        box=SIMPLE,
        pad_edge=False,
    )
    table.add_column("load", no_wrap=True)
    for kernel in kernels:
        table.add_column(kernel, justify="right", no_wrap=True)
    for load in _loads(seen.planted):
        at = {machine_name(one): one for one in seen.planted if load_name(one.gate) == load}
        cells = [starts_words(at[name]) if name in at else "" for name in kernels]
        table.add_row(load, *cells)
    return table


def evidence_plot(seen: Evidence, name: str) -> str:
    """Draw equal arms, planted effects, and the starts that finding them takes."""
    loads = _loads(_all(seen))
    kernels = _kernels(seen)
    changes = [abs(one.planted) for one in seen.planted if one.planted]
    estimates = [abs(one.estimate) for one in _all(seen) if one.estimate]
    reach = _FRAME * max(changes) if changes else max(estimates, default=0.01)
    with plot_style():
        figure = Figure(figsize=(8.2, 1.1 + 0.34 * len(loads)), layout="constrained")
        same, planted, starts = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1, 0.7))
        _draw_changes(same, seen.same, loads, kernels)
        _draw_changes(planted, seen.planted, loads, kernels)
        _draw_starts(starts, seen.planted, loads, kernels)
        for axes, title in ((same, "equal arms"), (planted, "planted effect")):
            axes.set_xlim(-reach, reach)
            axes.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol="\N{NO-BREAK SPACE}%"))
            axes.axvline(0, color=BASELINE, lw=0.6)
            axes.set_title(title, loc="left")
        for change in set(changes):
            for sign in {1 if (one.planted or 0) > 0 else -1 for one in seen.planted}:
                planted.axvline(sign * change, color="#222222", lw=0.8, ls=(0, (4, 2)))
        same.set_yticks(range(len(loads)), loads)
        same.set_ylim(len(loads) - 0.5, -0.5)
        starts.set_title("starts until it is found", loc="left")
        figure.legend(
            handles=[_handle(kernel, place) for place, kernel in enumerate(kernels)],
            loc="outside lower center",
            ncols=min(6, len(kernels)),
            frameon=False,
        )
    label = "Equal arms and planted effects with intervals, and starts until an effect is found"
    return inline_svg(figure, name, label)


def _draw_changes(
    axes: Axes,
    found: Sequence[SameArms | PlantedEffect],
    loads: Sequence[str],
    kernels: Sequence[str],
) -> None:
    for one in found:
        if one.estimate is None or one.low is None or one.high is None:
            continue
        place, colour, marker = _place(one, loads, kernels)
        axes.plot([one.low, one.high], [place] * 2, color=colour, lw=1.6, solid_capstyle="butt")
        axes.plot(one.estimate, place, marker, color=colour, ms=4)
    axes.tick_params("y", length=0)


def _draw_starts(
    axes: Axes, found: Sequence[PlantedEffect], loads: Sequence[str], kernels: Sequence[str]
) -> None:
    for one in found:
        place, colour, marker = _place(one, loads, kernels)
        at = LOOKS.index(one.starts) if one.starts in LOOKS else len(LOOKS)
        axes.plot(at, place, marker, color=colour, ms=5, mfc=colour if one.found else "white")
    axes.set_xlim(-0.5, len(LOOKS) + 0.5)
    axes.set_xticks(range(len(LOOKS) + 1), [*map(str, LOOKS), "more"])
    axes.tick_params("y", length=0)


def _place(
    one: SameArms | PlantedEffect, loads: Sequence[str], kernels: Sequence[str]
) -> tuple[float, str, str]:
    kernel = kernels.index(machine_name(one))
    step = 0.6 / max(1, len(kernels))
    height = loads.index(load_name(one.gate)) + step * (kernel - (len(kernels) - 1) / 2)
    return height, _COLOURS[kernel % len(_COLOURS)], _MARKERS[kernel % len(_MARKERS)]


def _handle(kernel: str, place: int) -> Line2D:
    return Line2D(
        [],
        [],
        color=_COLOURS[place % len(_COLOURS)],
        marker=_MARKERS[place % len(_MARKERS)],
        ls="",
        label=typeset(kernel),
    )


def _loads(found: Sequence[SameArms | PlantedEffect]) -> list[str]:
    return list(dict.fromkeys(load_name(one.gate) for one in found))


def _kernels(seen: Evidence) -> list[str]:
    return list(dict.fromkeys(machine_name(one) for one in _all(seen)))


def _all(seen: Evidence) -> tuple[SameArms | PlantedEffect, ...]:
    return (*seen.same, *seen.planted)


def _told(rate: Rate) -> str:
    if not rate.trials:
        return "not put to the test"
    upper = 100 * rate.upper
    return (
        f"{rate.count} of {rate.trials} (< {upper:.0f} %)"
        if upper >= 10
        else (f"{rate.count} of {rate.trials} (< {upper:.2g} %)")
    )
