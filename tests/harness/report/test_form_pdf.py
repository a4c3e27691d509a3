"""The form on paper: what it says, on which page, and always with the same bytes."""

from __future__ import annotations

import hashlib
import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pypdf
import pytest

from hyperbox.harness.report import form_fonts
from hyperbox.harness.report import form_pdf as form_pdf_module
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.form import Form
from hyperbox.harness.report.form_pdf import form_pdf
from hyperbox.harness.report.matrix import entries, headline, release_headline
from hyperbox.harness.verdicts.wording import typeset
from hyperbox.processes import run as run_program

ROOT = Path(__file__).parents[3]
FROZEN = Path(__file__).parent / "data" / "schema-1"


def read(run: RunData) -> pypdf.PdfReader:
    return pypdf.PdfReader(io.BytesIO(form_pdf(Form.of(run))))


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", ["run", "troubled_run", "empty_run"])
def test_every_page_says_what_it_is_and_how_many_there_are(
    name: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    pages = [page.extract_text() for page in read(run).pages]
    for number, text in enumerate(pages, start=1):
        assert f"page {number} of {len(pages)}" in text
        assert f"Release validation {run.run_id}" in text
    told = words(" ".join(pages))
    assert typeset(release_headline(run).text) in told.replace("\xa0", " ") or (
        words(typeset(release_headline(run).text)) in told
    )
    assert words(typeset(headline(run).text)) in told
    for role in ("Measured by", "Reviewed by", "Released by", "Signature", "Date"):
        assert role in pages[-1], "the table to be signed is whole on the last page"
    assert words(run.reproduce).split()[0] in pages[-1]


def test_the_form_has_every_verdict_deviation_and_fact(troubled_run: RunData) -> None:
    text = words(" ".join(page.extract_text() for page in read(troubled_run).pages))
    for entry in entries(troubled_run):
        assert entry.gate.id in text
        assert f"Kernel {entry.kernel}" in text
        if entry.interval_text:
            assert words(typeset(entry.interval_text)) in text
    for word in ("PASS", "SKIP", "ERROR", "UNTESTED", "INCONCLUSIVE"):
        assert word in text
    assert "no /proc/pressure: boot with psi=1" in text
    assert "<b>& \N{REPLACEMENT CHARACTER}[31m|panic|" in text, "told as it is, not as markup"
    assert "shrink_lruvec+0x1f" in text
    assert "counts: no attempt succeeded" in text
    assert "6.12.48+deb13-cloud-amd64" in text
    assert "cpus: 2; kernel: 6.18.3" in text


def test_its_only_clock_is_the_runs(run: RunData) -> None:
    reader = read(run)
    assert reader.metadata is not None
    assert reader.metadata.title == f"Release validation {run.run_id}"
    dates = {reader.metadata.creation_date_raw, reader.metadata.modification_date_raw}
    assert dates == {"D:20300101000000Z"}
    odd = read(replace(run, created="some day"))
    assert odd.metadata is not None
    assert odd.metadata.creation_date_raw == "D:19700101000000Z"


def test_the_same_run_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    program = (
        "import hashlib, pathlib, sys\n"
        "from hyperbox.harness.report.form import Form\n"
        "from hyperbox.harness.report.form_pdf import form_pdf\n"
        "from hyperbox.harness.runs.loading import load_run\n"
        "run = load_run(pathlib.Path(sys.argv[1]))\n"
        "print(hashlib.sha256(form_pdf(Form.of(run))).hexdigest())\n"
    )

    def digest(seed: str, zone: str, directory: Path) -> str:
        done = run_program(
            [sys.executable, "-c", program, str(FROZEN)],
            timeout=120,
            cwd=directory,
            environment={"PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": str(ROOT)},
        )
        return done.stdout.decode().strip()

    one = digest("1", "UTC", tmp_path)
    assert re.fullmatch("[0-9a-f]{64}", one)
    assert one != hashlib.sha256(b"").hexdigest()
    assert digest("2", "Asia/Tokyo", ROOT) == one


def test_endless_reasons_and_long_words_stay_on_their_pages(run: RunData) -> None:
    """A row must fit on a page; a form of a thousand verdicts must still be a form."""
    first, *others = run.verdicts
    loud = replace(first, reason="x" * 100_000)
    kernels = ({"label": "k" * 300, "release": "r" * 300, "remarks": ["remark " * 900]},)
    odd = replace(run, verdicts=(loud, *others), kernels=kernels, run_id="id" * 200)
    assert len(read(odd).pages) < 12


def test_heads_are_repeated(run: RunData) -> None:
    many = tuple({**run.kernels[0], "label": f"k{number}"} for number in range(90))
    pages = [page.extract_text() for page in read(replace(run, kernels=many)).pages]
    within = [text for text in pages if "5.10.0-36-cloud-amd64" in text]
    assert len(within) > 1
    assert all("Release and package" in text for text in within)


def in_another_script(run: RunData, text: str) -> RunData:
    gates = (replace(run.gates[0], title=f"{text} readings"), *run.gates[1:])
    return replace(run, gates=gates)


def test_characters_without_a_font_are_seen_to_be_missing(
    run: RunData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A form that is signed must not show empty boxes as if they were what was agreed."""
    monkeypatch.setattr(form_pdf_module, "register", lambda: form_fonts.register(()))
    odd = replace(in_another_script(run, "\u5185\u5b58"), run_id="\u8fd0-1")
    pages = [page.extract_text() for page in read(odd).pages]
    told = words(" ".join(pages))
    assert "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} readings" in told
    assert "U+5185, U+5B58, U+8FD0" in words(pages[0])
    assert "fonts-droid-fallback" in words(pages[0])
    assert all("Release validation \N{REPLACEMENT CHARACTER}-1" in page for page in pages)
    plain = words(" ".join(page.extract_text() for page in read(run).pages))
    assert "U+" not in plain


def test_a_font_of_the_machine_stands_in_where_it_is_needed(
    run: RunData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """STIX, which matplotlib brings too, has a sign that DejaVu lacks."""
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    stix = Path(mpl.get_data_path()) / "fonts" / "ttf" / "STIXGeneral.ttf"
    fonts = (tmp_path / "absent.ttf", broken, stix)
    plain = form_pdf(Form.of(run))
    monkeypatch.setattr(form_pdf_module, "register", lambda: form_fonts.register(fonts))
    odd = read(in_another_script(run, "\u20dd"))
    told = words(" ".join(page.extract_text() for page in odd.pages))
    assert "\u20dd readings" in told
    assert "U+20DD" not in told
    assert form_pdf(Form.of(run)) == plain, "no font gets in that is not needed"
