"""The release form as Chromium prints it: what it says, on which page, all of it legible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pypdf
import pytest

from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.form import Form
from hyperbox.harness.report.matrix import entries, headline, release_headline
from hyperbox.harness.report.page import form_page
from hyperbox.harness.verdicts.wording import typeset

Sheets = list[str]


LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl"}
)


def letters(text: str) -> str:
    """The text without spaces: a line of print may end within "--blocks"."""
    return "".join(text.translate(LIGATURES).split())


@pytest.fixture
def printed(browser: Callable[..., str], tmp_path: Path) -> Callable[[RunData], Sheets]:
    """Print a run's form; the text of each sheet of A4."""

    def sheets(run: RunData) -> Sheets:
        page, paper = tmp_path / "form.html", tmp_path / "form.pdf"
        page.write_text(form_page(Form.of(run)))
        browser(page, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
        reader = pypdf.PdfReader(paper)
        for sheet in reader.pages:
            assert (round(sheet.mediabox.width), round(sheet.mediabox.height)) == (595, 842)
        return [letters(sheet.extract_text()) for sheet in reader.pages]

    return sheets


@pytest.mark.parametrize("name", ["run", "troubled_run", "empty_run"])
def test_every_sheet_says_what_it_is_and_how_many_there_are(
    name: str, request: pytest.FixtureRequest, printed: Callable[[RunData], Sheets]
) -> None:
    run = request.getfixturevalue(name)
    sheets = printed(run)
    for number, text in enumerate(sheets, start=1):
        assert letters(f"page {number} of {len(sheets)}") in text
        assert letters(f"Release validation {run.run_id}") in text
    assert letters(typeset(release_headline(run).text)) in sheets[0]
    assert letters(typeset(headline(run).text)) in sheets[0]
    for role in ("Measured by", "Reviewed by", "Released by", "Signature", "Date"):
        assert letters(role) in sheets[-1], "the table to be signed is whole on the last sheet"
    assert letters(run.reproduce) in sheets[-1]


def test_the_form_has_every_verdict_deviation_and_fact(
    troubled_run: RunData, printed: Callable[[RunData], Sheets]
) -> None:
    text = "".join(printed(troubled_run))
    for entry in entries(troubled_run):
        assert entry.gate.id in text
        assert letters(f"Kernel {entry.kernel}") in text
        if entry.interval_text:
            assert letters(typeset(entry.interval_text)) in text
    for word in ("PASS", "SKIP", "ERROR", "UNTESTED", "INCONCLUSIVE"):
        assert word in text
    assert letters("no /proc/pressure: boot with psi=1") in text
    assert letters("<b>& \N{REPLACEMENT CHARACTER}[31m|panic|") in text, "text stays text"
    assert letters("shrink_lruvec+0x1f") in text
    assert letters("counts: no attempt succeeded") in text
    assert letters("6.12.48+deb13-cloud-amd64") in text
    assert letters("cpus: 2; kernel: 6.18.3") in text


def test_endless_texts_and_hostile_names_stay_on_few_sheets(
    run: RunData, printed: Callable[[RunData], Sheets]
) -> None:
    """A form of a hundred thousand letters would not be read; its footer is a string of CSS."""
    first, *others = run.verdicts
    loud = replace(first, reason="x" * 100_000)
    kernels = ({"label": "k" * 300, "release": "r" * 300, "remarks": ["remark " * 900]},)
    name = 'a"} * { display: none } </style><b>' + "id" * 200
    sheets = printed(
        replace(run, verdicts=(loud, *others), kernels=kernels, run_id=name, problems=("y" * 9000,))
    )
    assert len(sheets) < 12
    assert all(letters(f"Release validation {name[:60]}") in text for text in sheets)
    assert letters("… (cut here)") in "".join(sheets)


def test_heads_are_repeated_on_every_sheet(
    run: RunData, printed: Callable[[RunData], Sheets]
) -> None:
    many = tuple({**run.kernels[0], "label": f"k{number}"} for number in range(90))
    within = [text for text in printed(replace(run, kernels=many)) if "5.10.0-36-cloud" in text]
    assert len(within) > 1
    assert all(letters("Release and package") in text for text in within)


def test_other_scripts_are_kept_as_they_are(run: RunData) -> None:
    """What is signed has the very characters; the browser finds a font for them."""
    gates = (replace(run.gates[0], title="\u5185\u5b58 readings"), *run.gates[1:])
    assert "\u5185\u5b58 readings" in form_page(Form.of(replace(run, gates=gates)))
