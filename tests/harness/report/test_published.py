"""The published runs: an index made from their summaries, and nothing that can be made again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import ExitCode, HarnessError
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.page import write_report
from hyperbox.harness.report.published import KEPT, index_page

ROOT = Path(__file__).parents[3]
REPORTS = ROOT / "reports"


def test_the_index_of_this_repository_is_current() -> None:
    text = (REPORTS / "README.md").read_text()
    assert text == index_page(REPORTS), "run `hyperbox report --index reports`"
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (REPORTS / link).is_file()


def test_of_what_can_be_made_again_only_what_is_read_here_is_kept() -> None:
    runs = sorted(path.parent for path in REPORTS.glob("*/run.json"))
    assert runs
    shown = "".join(path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")))
    for run in runs:
        kept = {path.relative_to(run / "report").as_posix() for path in run.rglob("report/**/*.*")}
        assert kept >= {"report.md", "summary.json"}
        for name in kept - {"report.md", "summary.json"}:
            assert f"reports/{run.name}/report/{name}" in shown, "neither README nor docs show it"


@pytest.fixture
def published(small_run: RunData, tmp_path: Path) -> Path:
    for name in ("one", "two *runs*"):
        write_report(small_run, tmp_path / name / "report")
    (tmp_path / "not a run").mkdir()
    return tmp_path


def test_what_is_written_by_hand_stays(published: Path) -> None:
    assert main(["report", "--index", str(published)]) == ExitCode.PASS
    page = published / "README.md"
    made = page.read_text()
    assert KEPT not in made
    assert made.index("[one](one/report/report.md)") < made.index("two \\*runs\\*")
    assert "(two%20%2Aruns%2A/report/report.md)" in made
    page.write_text(f"# An older head\n\n{KEPT}\n\nby hand\n")
    assert main(["report", "--index", str(published)]) == ExitCode.PASS
    assert page.read_text() == f"{made}\n{KEPT}\n\nby hand\n"
    assert index_page(published) == page.read_text()


def test_a_summary_that_says_nothing_is_refused(published: Path, tmp_path: Path) -> None:
    (published / "one" / "report" / "summary.json").write_text('{"schema": 1}')
    with pytest.raises(HarnessError, match=r"one/report/summary\.json does not follow"):
        index_page(published)
    shutil.rmtree(published / "one")
    (published / "two *runs*" / "report" / "summary.json").write_text("[")
    with pytest.raises(HarnessError, match="is not JSON"):
        index_page(published)
    with pytest.raises(HarnessError, match="has no run with a report"):
        index_page(tmp_path / "nowhere")
