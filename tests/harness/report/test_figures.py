"""Figures where numbers are awkward: medians near zero, levels, several outcomes in a cell."""

from __future__ import annotations

from dataclasses import replace

from hyperbox.harness.report.cell_plots import cell_figure
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.material import cell_views
from hyperbox.harness.report.matrix import entries
from hyperbox.harness.report.plots import forest_plot


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
        assert f"{entry.kernel} {entry.mark.word} {entry.estimate_text}" in label


def test_a_cell_tallies_its_outcomes_worst_first(run: RunData) -> None:
    view = next(
        view
        for view in cell_views(run, entries(run))
        if view.data.cell.key == "7.3--psi.swap_storm--exact"
    )
    assert [(mark.word, count) for mark, count in view.tally] == [("FAIL", 2), ("PASS", 1)]
