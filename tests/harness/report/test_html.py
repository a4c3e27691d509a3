"""The pages in the hands of those who read them: a strict parser, and a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import html5lib
import pypdf
import pytest
from PIL import Image

from hyperbox.harness.report import context
from hyperbox.harness.report import page as page_module
from hyperbox.harness.report.comparison import compare
from hyperbox.harness.report.comparison_views import comparison_page
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.history import history
from hyperbox.harness.report.page import html_page, write_report

Draw = Callable[[RunData], str]


def parse(text: str) -> None:
    """Read as a browser does, but refuse every parse error."""
    html5lib.HTMLParser(strict=True).parse(text)


def test_the_parser_can_refuse() -> None:
    with pytest.raises(html5lib.html5parser.ParseError):
        parse(
            "<!DOCTYPE html><html><head><title>x</title></head><body><p><table></p></body></html>"
        )


@pytest.mark.parametrize("name", ["run", "troubled_run", "empty_run"])
def test_report_is_valid_html(
    name: str, request: pytest.FixtureRequest, page_of: Draw, tmp_path: Path
) -> None:
    run = request.getfixturevalue(name)
    parse(page_of(run))
    pages = [path for path in write_report(run, tmp_path) if path.suffix == ".html"]
    assert [path.name for path in pages] == ["report.html", "release-form.html"]
    parse(pages[1].read_text())


def test_comparison_and_history_are_valid_html(run: RunData) -> None:
    parse(comparison_page(compare(run, kernels=["6.12", "7.3"])))
    older = replace(run, run_id="older", created="2029-12-01T00:00:00Z")
    page = html_page(run, history(run, [older]))
    parse(page)
    assert "Earlier runs" in page


def many_cells(run: RunData, copies: int) -> RunData:
    cells = tuple(
        replace(one, cell=replace(one.cell, kernel=f"{one.cell.kernel}.{copy}"))
        for copy in range(copies)
        for one in run.cells
    )
    kernels = tuple({"label": label} for label in dict.fromkeys(c.cell.kernel for c in cells))
    verdicts = tuple(
        replace(v, kernel=f"{v.kernel}.{copy}") for copy in range(copies) for v in run.verdicts
    )
    return replace(run, cells=cells, kernels=kernels, verdicts=verdicts)


def test_a_large_run_is_spread_over_pages(
    run: RunData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Urgent cells first; every cell is on exactly one page; an older report leaves nothing."""
    monkeypatch.setattr(context, "_MOST_CELLS", 10)
    monkeypatch.setattr(page_module, "_CELLS_A_PAGE", 20)
    monkeypatch.setattr(page_module, "_MOST_ROWS", 30)
    large = many_cells(run, 7)
    (tmp_path / "cells-009.html").write_text("of an earlier, larger report")
    pages = {p.name: p.read_text() for p in write_report(large, tmp_path) if p.suffix == ".html"}
    assert sorted(pages) == ["cells-001.html", "cells-002.html", "release-form.html", "report.html"]
    assert not (tmp_path / "cells-009.html").exists()
    for page in pages.values():
        parse(page)
    shown = [re.findall(r'<article id="cell-([^"]+)"', pages[name]) for name in sorted(pages)]
    assert sorted(key for keys in shown for key in keys) == sorted(c.cell.key for c in large.cells)
    assert all("psi.swap_storm" in key for key in shown[3][:7]), "what failed comes first"
    assert 'href="cells-001.html"' in pages["report.html"]
    for page, anchor in re.findall(r'href="([^"#]*)#(cell-[^"]+)"', pages["report.html"]):
        assert f'id="{anchor}"' in pages[page or "report.html"], "a link that leads nowhere"
    assert "shown are the verdicts that most call for a reader" in pages["report.html"]


def complaints(log: str) -> list[str]:
    """What the page made the browser say: script errors, refused loads, policy violations."""
    return [line for line in log.splitlines() if "CONSOLE" in line]


def test_the_browser_can_complain(browser: Callable[..., str], tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<!DOCTYPE html><title>x</title><script>console.error('no')</script>")
    assert complaints(browser(page, "--dump-dom"))


@pytest.mark.parametrize("width", [390, 1280])
def test_report_opens_without_a_complaint(
    browser: Callable[..., str], page_of: Draw, troubled_run: RunData, tmp_path: Path, width: int
) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(page_of(troubled_run))
    log = browser(page, f"--screenshot={picture}", f"--window-size={width},1600")
    assert complaints(log) == []
    with Image.open(picture) as image:
        assert image.width == width
        colours = image.convert("RGB").getcolors(1 << 20) or []
    assert len(colours) > 50, "an empty page"


def in_phone(browser: Callable[..., str], text: str, asked: str, directory: Path) -> int:
    """What a script finds out in a frame of 390 pixels: Chromium's own window has 500 or more."""
    page, frame = directory / "page.html", directory / "frame.html"
    probe = f"<script>document.title = {asked}</script></body>"
    page.write_text(re.sub(r"<meta http-equiv[^>]*>", "", text.replace("</body>", probe)))
    frame.write_text(
        "<!DOCTYPE html><title>frame</title><iframe id=f src=page.html width=390 height=800>"
        "</iframe><script>onload = () => { document.title = "
        "document.getElementById('f').contentDocument.title }</script>"
    )
    log = browser(frame, "--dump-dom", "--allow-file-access-from-files")
    found = re.search(r"<title>(\d+)</title>", log)
    assert found, log[-500:]
    return int(found[1])


def test_page_is_no_wider_than_a_phone(
    browser: Callable[..., str], page_of: Draw, troubled_run: RunData, tmp_path: Path
) -> None:
    """Wide figures and tables scroll in their own boxes; the page itself must not."""
    asked = "document.documentElement.scrollWidth"
    assert in_phone(browser, page_of(troubled_run), asked, tmp_path) <= 390


def test_no_text_is_squeezed_on_a_phone(
    browser: Callable[..., str], page_of: Draw, troubled_run: RunData, tmp_path: Path
) -> None:
    """Widths meant for the columns of a wide table must not stay where rows are stacked."""
    asked = (
        "Math.round(Math.min(...Array.from(document.querySelectorAll('table.stack code'), "
        "one => one.getBoundingClientRect()).filter(box => box.height > 60)"
        ".map(box => box.width), 390))"
    )
    assert in_phone(browser, page_of(troubled_run), asked, tmp_path) >= 150


def test_comparison_fits_a_phone_without_scrolling(
    browser: Callable[..., str], run: RunData, tmp_path: Path
) -> None:
    """Names are long on purpose; every text and bar of the figure is in view."""
    later = replace(run, run_id="20300101T094602.136Z-" + "x" * 40, seed=2)
    page = comparison_page(compare(run, later))
    asked = (
        "Math.ceil(Math.max(...Array.from(document.querySelectorAll('.bars, .bars *, main'), "
        "one => Math.max(one.getBoundingClientRect().right, one.scrollWidth))))"
    )
    assert 300 < in_phone(browser, page, asked, tmp_path) <= 390


def test_names_of_any_length_fit_a_phone(
    browser: Callable[..., str], run: RunData, tmp_path: Path
) -> None:
    label = "/home/somebody/linux/arch/x86/boot/bzImage"
    cells = tuple(replace(c, cell=replace(c.cell, kernel=label)) for c in run.cells[:2])
    gates = tuple(replace(g, id=f"{g.id}.{'a_long_name' * 6}") for g in run.gates)
    verdicts = tuple(
        replace(v, kernel=label, gate=f"{v.gate}.{'a_long_name' * 6}")
        for v in run.verdicts
        if v.kernel == run.cells[0].cell.kernel
    )
    long = replace(run, run_id="run" * 40, cells=cells, kernels=(), gates=gates, verdicts=verdicts)
    asked = "document.documentElement.scrollWidth"
    assert in_phone(browser, html_page(long), asked, tmp_path) <= 390


def test_paper_keeps_together_what_belongs_together(
    browser: Callable[..., str], run: RunData, tmp_path: Path
) -> None:
    """Closed details are printed, pages are numbered, no heading loses what it stands over."""
    configs = {"5.10": {"CONFIG_HZ": "250"}, "7.3": {"CONFIG_HZ": "1000"}}
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text(html_page(replace(run, kernel_configs=configs), draw=["*"]))
    browser(page, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    sheets = [" ".join(sheet.extract_text().split()) for sheet in pypdf.PdfReader(paper).pages]
    assert all(f"page {at} of {len(sheets)}" in text for at, text in enumerate(sheets, start=1))
    assert "CONFIG_HZ" in " ".join(sheets)
    for cell in run.cells:
        head = f"{cell.experiment.title} on {cell.cell.kernel}"
        (sheet,) = (text for text in sheets if head in text)
        below = sheet[sheet.index(head) :]
        assert cell.cell.key in below, "the heading stands alone at the foot of a page"
        first = next(gate for gate in run.gates if gate.experiment == cell.experiment.id)
        assert first.id in below.split(cell.cell.key, 1)[1], "its figure is on the next page"


def test_report_and_form_print(browser: Callable[..., str], run: RunData, tmp_path: Path) -> None:
    for path in write_report(run, tmp_path):
        if path.suffix == ".html":
            paper = path.with_suffix(".pdf")
            log = browser(path, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
            assert complaints(log) == []
            assert paper.read_bytes().startswith(b"%PDF-")
