"""A comparison for readers: the figure says what the rows say, the table fits its terminal."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import html5lib
import pytest
from rich.console import Console

from hyperbox.harness.report.comparison import compare
from hyperbox.harness.report.comparison_data import SideFinding
from hyperbox.harness.report.comparison_views import (
    axis,
    bars,
    comparison_page,
    comparison_table,
    strip,
)
from hyperbox.harness.report.data import RunData


@pytest.mark.parametrize("width", [80, 140])
def test_table_fits_its_terminal(run: RunData, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), color_system=None, record=True)
    found = compare(run, kernels=["5.10", "7.3"])
    console.print(comparison_table(found, width))
    text = console.export_text()
    assert "…" in text
    for row in found.rows:
        shown = row.finding is not SideFinding.SAME  # the sentence counts those
        assert (f"{row.metric.id} ({row.arm})" in text) is shown
        assert not shown or row.change_text in text
    assert ("┊" in text) is (width > 100)
    assert max(map(len, text.splitlines())) <= width


def test_strip_draws_where_the_change_lies(run: RunData) -> None:
    row = compare(run, kernels=["5.10", "6.12"]).rows[-1]
    half = replace(row, shift=replace(row.shift, estimate=math.log(1.5), low=math.log(1.0)))
    drawn = strip(replace(half, shift=replace(half.shift, high=math.log(2.0))), 1.0, half=4)
    assert drawn == "····──●─·"
    assert strip(replace(row, ratio=False), 1.0) == ""


def percent(place: str) -> float:
    assert place.endswith("%")
    return float(place[:-1])


def test_bars_lie_on_the_side_that_is_better(run: RunData) -> None:
    """In percent of whatever width there is; the axis has the same places on both sides."""
    found = compare(run, kernels=["5.10", "6.12"])
    drawn = bars(found)
    assert [bar.row.finding for bar in drawn[:2]] == [SideFinding.FIRST_BETTER] * 2
    for bar in drawn:
        low, at, high = map(percent, (bar.low, bar.at, bar.high))
        assert 0 <= low <= at <= high <= 100
        assert (bar.row.finding is SideFinding.FIRST_BETTER) <= (high < 50)
        assert (bar.row.finding is SideFinding.SECOND_BETTER) <= (low > 50)
    places = {label: percent(place) for place, label in axis(found)}
    assert places["equal"] == 50
    sides = [percent(place) - 50 for place, _ in axis(found)]
    assert sides == pytest.approx([-side for side in reversed(sides)])


def test_every_bar_is_in_the_page_with_its_words(run: RunData) -> None:
    found = compare(run, kernels=["5.10", "6.12"])
    page = html5lib.parse(comparison_page(found), namespaceHTMLElements=False)
    figure = page.find(".//figure")
    names = [one.text for one in figure.iterfind(".//span[@class='name']")]
    assert names == [bar.name for bar in bars(found)]
    kinds = [one.get("class") for one in figure.iterfind(".//div")]
    assert kinds.count("bar first") == found.count(SideFinding.FIRST_BETTER)
    assert kinds.count("bar open") == found.count(SideFinding.NOT_SURE)


def test_what_has_no_ratio_is_counted_beside_the_figure(run: RunData) -> None:
    cells = tuple(
        replace(c, samples=tuple(replace(s, value=-s.value) for s in c.samples)) for c in run.cells
    )
    page = comparison_page(compare(replace(run, cells=cells), kernels=["5.10", "6.12"]))
    assert "<figure" not in page
    assert "Every metric" in page


def test_names_of_others_are_no_markup(run: RunData) -> None:
    page = comparison_page(compare(run, replace(run, run_id="<b>&\x1b[31m", seed=2)))
    assert "<b>" not in page
    assert "\x1b" not in page
