"""Figures where numbers are awkward: medians near zero, levels, several outcomes in a cell."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.harness.model import Lane, Metric, Rule, Scale
from hyperbox.harness.report import context
from hyperbox.harness.report.axes import (
    fitted,
    one_line,
    round_ticks,
    text_width,
    tick_labels,
)
from hyperbox.harness.report.cell_plots import cell_figure
from hyperbox.harness.report.context import ReportContext, cell_views, chosen_cells
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.forest import forest_plot
from hyperbox.harness.report.matrix import MatrixEntry, entries
from hyperbox.harness.report.outcome_styles import (
    OUTCOME_STYLES,
    UNTESTED,
    OutcomeStyle,
    outcome_css,
)
from hyperbox.harness.verdicts.gates import decide
from hyperbox.processes import run as run_program

ROOT = Path(__file__).parents[3]
FROZEN = Path(__file__).parent / "data" / "schema-2"


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
    assert not any(text.startswith("\N{MINUS SIGN}") for text in texts(figure)), "a tick below 0"
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


def texts(figures: str) -> list[str]:
    """Every text of some figures, in their order."""
    root = ET.fromstring(f"<figures>{figures}</figures>")
    return ["".join(text.itertext()) for text in root.iter("text")]


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


def test_no_text_leaves_its_figure(
    run: RunData, browser: Callable[..., str], tmp_path: Path
) -> None:
    """As a browser sets it, in its own fonts: no text is cut at the edge of its figure."""
    long = awkward(run)
    by_gate = [[e for e in entries(run) if e.gate == gate] for gate in run.gates]
    figures = [*map(forest_plot, [*by_gate, long]), cell_figure([*entries(run), *long])]
    page = tmp_path / "figures.html"
    page.write_text(
        f"<!DOCTYPE html><title>x</title><body>{''.join(figures)}<script>const out = [];"
        "for (const svg of document.querySelectorAll('svg')) {"
        " const edge = svg.getBoundingClientRect();"
        " for (const text of svg.querySelectorAll('text')) {"
        "  const box = text.getBoundingClientRect();"
        "  if (box.left < edge.left - 1 || box.right > edge.right + 1 || box.top < edge.top - 1 ||"
        "   box.bottom > edge.bottom + 1) out.push(text.textContent) } }"
        "document.title = document.querySelectorAll('text').length + ' texts, outside: ' + out"
        "</script>"
    )
    found = re.search(r"<title>(\d+) texts, outside: (.*)</title>", browser(page, "--dump-dom"))
    assert found
    assert int(found[1]) == len(texts("".join(figures))) > 200
    assert found[2] == ""


def test_a_cell_of_the_matrix_holds_what_it_says(run: RunData) -> None:
    """ "-1 563 022 pages of memory" is longer than a cell: the number or the symbol is not."""
    tiles = [entry.short_text for entry in awkward(run)]
    assert len(tiles) == 3
    assert all(tile[0] in "✓✗?" and len(tile) <= 16 for tile in tiles)
    assert all(re.fullmatch("[✓✗?] [-+]?[0-9.\xa0]+", tile) for tile in tiles)
    assert {e.short_text for e in entries(run) if e.gate.id == "psi.accuracy"} == {"✓ 0"}


def test_the_same_figure_in_every_process(tmp_path: Path) -> None:
    """Neither the hash seed, nor the clock, nor the time zone of a machine is in a report."""
    program = (
        "import pathlib, sys\n"
        "from hyperbox.harness.report.page import write_report\n"
        "from hyperbox.harness.runs.loading import load_run\n"
        "write_report(load_run(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]), (), ['*'])\n"
    )
    written = []
    for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo")):
        home = tmp_path / seed
        environment = {"PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": str(ROOT)}
        argv = [sys.executable, "-c", program, str(FROZEN), str(home)]
        run_program(argv, timeout=120, environment=environment)
        paths = sorted(path for path in home.rglob("*") if path.is_file())
        written.append({path.relative_to(home): path.read_bytes() for path in paths})
    assert written[0] == written[1]
    assert b"<svg" in written[0][Path("report.html")]
    assert any(path.suffix == ".svg" for path in written[0])


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2, "relative luminance")."""

    def luminance(colour: str) -> float:
        shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_the_guidelines_do() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("style", [*OUTCOME_STYLES.values(), UNTESTED], ids=lambda s: s.word)
def test_every_outcome_can_be_read(style: OutcomeStyle) -> None:
    """WCAG level AA asks for 4.5:1; the untested tile is hatched in #dddddd."""
    assert contrast(style.ink, "#ffffff") >= 4.5
    assert contrast(style.on_tile, style.tile) >= 4.5
    if style is UNTESTED:
        assert contrast(style.on_tile, "#dddddd") >= 4.5
    assert f"--tile: {style.tile}; --on-tile: {style.on_tile};" in outcome_css()


def test_what_passed_is_drawn_only_where_asked_for(run: RunData) -> None:
    def drawn(*names: str) -> set[str]:
        shown, _ = chosen_cells(cell_views(run, entries(run), names))
        return {view.data.cell.key for view in shown if view.figure}

    troubled = {"6.12--psi.swap_storm--exact", "7.3--psi.swap_storm--exact"}
    assert drawn() == troubled
    assert drawn("5.10--*") == troubled | {
        "5.10--psi.readings--exact",
        "5.10--psi.swap_storm--exact",
    }
    assert drawn("psi.monitor_cpu") - troubled == {
        f"{kernel}--psi.readings--exact" for kernel in ("5.10", "6.12", "7.3")
    }


def test_of_many_gates_those_are_drawn_that_call_for_a_reader(
    run: RunData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_MOST_FOREST_ROWS", 6)
    plain = ReportContext.of(run)
    assert set(plain.forests) == {"psi.swap_reduction", "psi.no_degradation"}, "what failed"
    assert plain.gates_not_drawn == 3
    assert "psi.accuracy" in ReportContext.of(run, ["psi.acc*"]).forests


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 10))
def test_ticks_are_few_and_within(low: float, width: float, about: int) -> None:
    ends = (low, low + width)
    ticks = round_ticks(ends, about)
    assert len(ticks) <= about + 1
    assert all(ends[0] - 1e-6 * width <= tick <= ends[1] + 1e-6 * width for tick in ticks)


@given(st.text(min_size=1, max_size=80), st.floats(20, 400))
def test_fitted_text_fits_and_keeps_both_ends(text: str, width: float) -> None:
    text, short = one_line(text), fitted(text, width)
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
    assert any(re.fullmatch(r"0\.03\d+\xa0%", text) for text in texts(cell_figure([level])))
    assert any("difference, pages of memor" in text for text in texts(cell_figure([difference])))
    assert any("pages of memory (" in text for text in texts(forest_plot([difference])))


def test_counts_have_no_axis_below_zero(run: RunData) -> None:
    entry = next(e for e in entries(run) if e.gate.id == "psi.accuracy")
    assert {value.value for value in entry.blocks} == {0}
    assert "\N{MINUS SIGN}" not in cell_figure([entry])


def test_paper_can_be_cut_between_the_gates_of_a_cell(run: RunData) -> None:
    storm = [e for e in entries(run) if e.kernel == "7.3" and e.gate.experiment == "psi.swap_storm"]
    assert cell_figure(storm).count("<svg ") == len(storm) == 3
