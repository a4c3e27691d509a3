"""``report``, ``compare`` and ``merge`` end to end, on a real run that was frozen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import ExitCode

OLD = Path(__file__).parents[1] / "harness" / "report" / "data" / "schema-1"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "one")
    return tmp_path / "one"


Output = pytest.CaptureFixture[str]


def test_report_fits_eighty_columns_in_a_pipe(
    run: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["report", str(run)]) == ExitCode.PASS
    text = capsys.readouterr().out
    table = text[: text.index("run directory:")]
    assert max(map(len, table.splitlines())) <= 80
    row = next(line for line in table.splitlines() if "psi.pressure_reduction" in line)
    assert "✓ PASS" in row, "a verdict stands in one line with its gate"
    assert (run / "report" / "report.html").exists()


def test_report_shows_damage_and_exits_so(run: Path, capsys: Output) -> None:
    next(run.glob("cells/6.12*monitor*/attempt-1/record.json")).write_text("{")
    assert main(["report", str(run)]) == ExitCode.HARNESS_ERROR
    text = capsys.readouterr().out
    assert "damage: " in text
    assert "Incomplete: psi.monitor_cpu on 6.12" in text
    assert "7 of 8 verdicts" in text


def test_report_for_github(run: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = run.parent / "summary.md"
    summary.write_text("of an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert main(["report", "--github", str(run)]) == ExitCode.PASS
    assert capsys.readouterr().out.startswith("::notice title=hyperbox::Passed")
    assert summary.read_text().startswith("of an earlier step\n\n# ✓ Passed")


def test_report_with_history(run: Path, capsys: Output) -> None:
    earlier = run.parent / "two"
    shutil.copytree(OLD, earlier)
    assert main(["report", str(run), "--history", str(earlier)]) == ExitCode.PASS
    page = (run / "report" / "report.html").read_text()
    assert "Earlier runs" in page
    assert "no change found" in page


def test_earlier_runs_that_cannot_be_read_are_named(run: Path, capsys: Output) -> None:
    output = run.parent / "pages"
    argv = ["report", str(run), "--output", str(output), "--history", str(run.parent / "none")]
    assert main(argv) == ExitCode.PASS
    assert "damage: earlier run left out: " in capsys.readouterr().out
    assert (output / "report.html").exists()
    assert not (run / "report").exists()


def test_compare_kernels(run: Path, capsys: Output) -> None:
    page = run.parent / "page.html"
    argv = ["compare", str(run), "--kernels", "6.12", "7.3"]
    assert main([*argv, "--html", str(page)]) == ExitCode.PASS
    text = capsys.readouterr().out
    assert "▶ 7.3" in text
    assert "is better at" in text
    assert page.read_text().lstrip().startswith("<!DOCTYPE html>")
    assert main([*argv, "--json"]) == ExitCode.PASS
    rows = json.loads(capsys.readouterr().out)["rows"]
    stall = next(r for r in rows if (r["metric"], r["arm"]) == ("memory_some_us", "stock"))
    assert stall["finding"] == "second better"
    assert stall["change"] == pytest.approx(-0.667, abs=1e-3)
    assert stall["p"] < 0.05


def test_compare_tells_damage_as_it_is(run: Path, capsys: Output) -> None:
    odd = run.parent / "[bold]odd"
    shutil.copytree(OLD, odd)
    next(odd.glob("cells/6.12*monitor*/attempt-1/record.json")).write_text("{")
    assert main(["compare", str(run), str(odd)]) == ExitCode.PASS
    text = capsys.readouterr().out
    assert "neither one nor [bold]odd is surely better at any" in text
    assert "note: damage: " in text
    assert "is not JSON" in " ".join(text.split())


def test_compare_of_equal_runs_has_no_empty_table(run: Path, capsys: Output) -> None:
    shutil.copytree(OLD, run.parent / "two")
    assert main(["compare", str(run), str(run.parent / "two")]) == ExitCode.PASS
    text = capsys.readouterr().out
    assert "are identical" in text
    assert "Change (interval)" not in text
    assert main(["compare", str(run), str(run)]) == ExitCode.BAD_USAGE, "a run is itself"


def test_compare_tells_what_broke_on_one_side(run: Path, capsys: Output) -> None:
    shutil.rmtree(next(run.glob("cells/7.3*monitor*")) / "attempt-1")
    assert main(["compare", str(run), "--kernels", "6.12", "7.3"]) == ExitCode.PASS
    text = " ".join(capsys.readouterr().out.split())
    assert "note: 7.3 has no numbers of psi.monitor_cpu on 7.3: not measured" in text


def test_compare_refuses_in_one_line(run: Path, capsys: Output) -> None:
    assert main(["compare", str(run)]) == ExitCode.BAD_USAGE
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith("hyperbox: error: one run needs two kernels")
    assert shown[1].startswith("hint: ")
    assert len(shown) == 2


def test_merge_reports_the_whole(run: Path, capsys: Output) -> None:
    output = run.parent / "whole"
    assert main(["merge", str(run), "--output", str(output)]) == ExitCode.PASS
    assert "all 8 verdicts" in capsys.readouterr().out
    assert main(["merge", str(run), "--output", str(output)]) == ExitCode.BAD_USAGE
    assert "is not empty" in capsys.readouterr().err
