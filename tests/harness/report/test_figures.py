"""Figures where numbers are awkward: medians near zero, levels, several outcomes in a cell."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from hyperbox.harness.model import Lane, Metric, Rule, Scale
from hyperbox.harness.report.cell_plots import cell_figure
from hyperbox.harness.report.context import cell_views
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.drawing import fitted, text_width
from hyperbox.harness.report.matrix import MatrixEntry, entries
from hyperbox.harness.report.plots import forest_plot, heat_map, tick_labels
from hyperbox.harness.verdicts.gates import decide


def test_a_median_near_zero_is_no_scale(run: RunData) -> None:
    """One page here, 1216 there: "+121500 %" would say nothing; the values themselves do."""
    wild = {0: 1.0, 1: 1216.0}
    cells = tuple(
        replace(
            c,
            samples=tuple(
                replace(s, value=wild.get(s.block, 2.0)) if s.metric == "pswpout" else s
                for s in c.samples
            ),
        )
        for c in run.cells
    )
    matrix = [e for e in entries(replace(run, cells=cells)) if e.gate.id == "psi.swap_reduction"]
    figure = cell_figure(matrix[:1])
    assert "1 … 1\N{NO-BREAK SPACE}216" in figure
    assert "00.0\N{NO-BREAK SPACE}%" not in figure


def test_levels_are_drawn_from_zero_and_told_to_those_who_hear(run: RunData) -> None:
    rows = [e for e in entries(run) if e.gate.id == "psi.monitor_cpu"]
    figure = forest_plot(rows)
    assert ">\N{MINUS SIGN}" not in figure, "no tick below zero"
    label = figure[: figure.index(">")]
    for entry in rows:
        assert f"{entry.kernel} {entry.style.word} {entry.estimate_text}" in label


def test_a_cell_tallies_its_outcomes_worst_first(run: RunData) -> None:
    view = next(
        view
        for view in cell_views(run, entries(run))
        if view.data.cell.key == "7.3--psi.swap_storm--exact"
    )
    assert [(style.word, count) for style, count in view.tally] == [("FAIL", 2), ("PASS", 1)]


def texts(figure: str) -> list[tuple[float, float, str, str]]:
    """Left and right end of each level text of a figure, by the drawing's estimate."""
    found = []
    for x, css, told in re.findall(
        r'<text x="([-0-9.]+)" y="[^"]*" class="([^"]*)"[^>]*>([^<]*)</text>', figure
    ):
        text = unescape(told)
        width = text_width(text, 10.5 if "small" in css else 12) * 0.9  # it is generous
        share = 0.5 if "mid" in css else 1.0 if "end" in css else 0.0
        left = float(x) - share * width
        found.append((left, left + width, css, text))
    return found


def assert_within(figure: str) -> None:
    head = re.match(r'<svg [^>]*viewBox="0 0 ([0-9.]+)', figure)
    assert head
    for left, right, _, text in texts(figure):
        assert left >= -1, text
        assert right <= float(head[1]) + 1, text


def awkward(run: RunData) -> list[MatrixEntry]:
    """A difference in long numbers of a long unit, on kernels with long names."""
    unit = Metric("pswpout", "Pages", "pages of memory", "lower")
    gate = replace(
        run.gates[3],
        rule=Rule.NON_INFERIOR,
        scale=Scale.DIFFERENCE,
        margin=200.0,
        band_upper=None,
        id="psi.a_gate_whose_name_is_longer_than_anybody_would_expect_of_a_name",
    )
    cells, verdicts = [], []
    for cell in run.cells:
        if cell.experiment.id == gate.experiment:
            label = f"/home/somebody/linux/arch/x86/boot/bzImage-{cell.cell.kernel}"
            experiment = replace(cell.experiment, metrics=(unit,))
            samples = tuple(replace(s, value=997 * s.value) for s in cell.samples)
            mine = replace(
                cell,
                cell=replace(cell.cell, kernel=label),
                experiment=experiment,
                samples=tuple(s for s in samples if s.metric == "pswpout"),
            )
            cells.append(mine)
            verdicts.append(decide(gate, experiment, label, Lane.EXACT, mine.samples))
    odd = replace(run, cells=tuple(cells), verdicts=tuple(verdicts), gates=(gate,), kernels=())
    return list(entries(odd))


def test_no_text_leaves_its_figure(run: RunData) -> None:
    for gate in run.gates:
        assert_within(forest_plot([e for e in entries(run) if e.gate.id == gate.id]))
    long = awkward(run)
    assert_within(forest_plot(long))
    assert_within(heat_map(long))
    assert_within(heat_map(entries(run)))
    for entry in (*entries(run), *long):
        for row in cell_figure([entry]).split("</svg>"):
            if row:
                assert_within(f"{row}</svg>")


def test_a_tile_holds_what_it_says(run: RunData) -> None:
    """ "-1 563 022 pages of memory" is longer than a tile: the number or the symbol is not."""
    tiles = [t for t in texts(heat_map(awkward(run))) if t[2] == "mid" and t[3][0] in "✓✗?"]
    assert len(tiles) == 3
    assert all(right - left <= 100 for left, right, _, _ in tiles)


@given(st.text(min_size=1, max_size=80), st.floats(20, 400))
def test_fitted_text_fits_and_keeps_both_ends(text: str, width: float) -> None:
    short = fitted(text, width)
    assert text_width(short) <= max(width, text_width("mmm") * 2)
    if short != text:
        assert "…" in short
        assert short[0] == text[0]
        assert short[-1] == text[-1]


def test_every_axis_names_its_unit(run: RunData) -> None:
    by_gate = {entry.gate.id: entry for entry in entries(run)}
    difference = awkward(run)[0]
    level, ratio = by_gate["psi.monitor_cpu"], by_gate["psi.pressure_reduction"]
    assert tick_labels(level, [0.0, 0.5, 1.0]) == ["0", "0.5 %", "1.0 %"]
    assert tick_labels(ratio, [-5.0, -2.5, 0.0, 2.5]) == ["-5.0 %", "-2.5 %", "0", "+2.5 %"]
    assert tick_labels(by_gate["psi.accuracy"], [0.0, 20_000.0])[1] == "20\N{NO-BREAK SPACE}000"
    assert tick_labels(difference, [-2e6, 0.0, 5e5]) == ["-2.0M", "0", "0.5M"]
    assert re.search(r">0\.03\d+\xa0%<", cell_figure([level]))
    assert "difference, pages of memor" in cell_figure([difference])
    assert "pages of memory (" in forest_plot([difference])


def test_counts_have_no_axis_below_zero(run: RunData) -> None:
    entry = next(e for e in entries(run) if e.gate.id == "psi.accuracy")
    assert all(value.value == 0 for value in entry.blocks)
    assert "\N{MINUS SIGN}" not in cell_figure([entry])


def test_paper_can_be_cut_between_the_gates_of_a_cell(run: RunData) -> None:
    storm = [e for e in entries(run) if e.kernel == "7.3" and e.gate.experiment == "psi.swap_storm"]
    assert cell_figure(storm).count("<svg ") == len(storm) == 3
