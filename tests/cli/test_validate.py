"""``hyperbox validate`` end to end on the host, with suites of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hyperbox.cli.main import main

_SUITE = """
id = "tiny"
title = "A tiny suite"

[[experiment]]
id = "tiny.work"
title = "Deterministic work"
program = ["python3", "work.py", "{arm}"]
changes_machine = false
timeout_s = 60
arms = [{ id = "off", title = "untuned" }, { id = "on", title = "tuned" }]
metrics = [{ id = "time", title = "Time", unit = "us" }, { id = "errors", title = "E", unit = "1" }]

[[experiment]]
id = "tiny.setting"
title = "Changes the machine"
program = ["python3", "work.py", "{arm}"]
arms = [{ id = "off", title = "untuned" }, { id = "on", title = "tuned" }]
metrics = [{ id = "time", title = "Time", unit = "us" }, { id = "errors", title = "E", unit = "1" }]

[[gate]]
id = "tiny.faster"
title = "Tuned is faster"
target = "at least 5 % faster"
experiment = "tiny.work"
metric = "time"
rule = "reduces_at_least"
margin = 0.05
arm = "on"
baseline = "off"

[[gate]]
id = "tiny.much_faster"
title = "Tuned is much faster"
target = "at least 50 % faster"
experiment = "tiny.work"
metric = "time"
rule = "reduces_at_least"
margin = 0.5
arm = "on"
baseline = "off"

[[gate]]
id = "tiny.correct"
title = "No errors"
target = "none"
experiment = "tiny.setting"
metric = "errors"
rule = "count"
margin = 0
arm = "on"
"""

_WORK = """
import json, os, random, sys
dice = random.Random(int(os.environ["HYPERBOX_SEED"]))
value = 1000 + dice.random() - (100 + dice.random() if sys.argv[1] == "on" else 0)
print(json.dumps({"metrics": {"time": value, "errors": 0}}))
"""


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with the tiny suite, and stand beside it."""
    directory = tmp_path / "suites"
    (directory / "tiny").mkdir(parents=True)
    (directory / "tiny" / "suite.toml").write_text(_SUITE)
    (tmp_path / "work.py").write_text(_WORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYPERBOX_SUITES", os.fspath(directory))
    monkeypatch.setenv("HYPERBOX_TARGET", "host")
    monkeypatch.setenv("HYPERBOX_CACHE", os.fspath(tmp_path / "cache"))
    return directory


@pytest.mark.parametrize(
    ("words", "code", "outcomes"),
    [
        (["tiny.faster"], 0, {"tiny.faster": "PASS"}),
        (["tiny.much_faster"], 1, {"tiny.much_faster": "FAIL"}),
        (["tiny.faster", "--blocks", "4", "--strict"], 2, {"tiny.faster": "INCONCLUSIVE"}),
        (["tiny.correct"], 3, {"tiny.correct": "SKIP"}),
        (["tiny.correct", "--allow-host-changes"], 0, {"tiny.correct": "PASS"}),
        (["tiny.faster", "tiny.correct"], 0, {"tiny.faster": "PASS", "tiny.correct": "SKIP"}),
        (
            ["tiny.faster", "tiny.correct", "--strict"],
            2,
            {"tiny.faster": "PASS", "tiny.correct": "SKIP"},
        ),
        (["tiny"], 1, {"tiny.faster": "PASS", "tiny.much_faster": "FAIL", "tiny.correct": "SKIP"}),
    ],
)
def test_verdicts_and_exit_codes(
    suites: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    outcomes: dict[str, str],
) -> None:
    assert main(["validate", "--json", *words]) == code
    shown = json.loads(capsys.readouterr().out)
    assert {verdict["gate"]: verdict["outcome"] for verdict in shown["verdicts"]} == outcomes
    assert shown["exit_code"] == code
    skips = [verdict["reason"] for verdict in shown["verdicts"] if verdict["outcome"] == "SKIP"]
    assert all(reason.endswith("; no gate stands in") for reason in skips)
    assert all(Path(page).is_file() for page in shown["report"])
    assert Path(shown["directory"]).parent == Path("runs")


def test_the_table_names_report_and_run(suites: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "tiny.faster", "--run-directory", "mine"]) == 0
    said = capsys.readouterr().out
    assert "tiny.faster" in said
    assert "run directory: mine" in said
    assert "report: mine/report/report.html" in said
    document = json.loads(Path("mine/run.json").read_text())
    assert document["status"] == "complete"
    assert document["versions"]["hyperbox"]
    assert document["environment"]["host"]["cpus"] >= 1
    assert main(["validate", "--run-directory", "mine"]) == 64


def test_a_report_can_be_made_again(suites: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "tiny.much_faster", "--run-directory", "mine", "--json"]) == 1
    first = json.loads(capsys.readouterr().out)
    shutil.rmtree("mine/report")
    assert main(["report", "mine", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == first


def test_a_damaged_cell_is_an_error_verdict(
    suites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "tiny.faster", "--run-directory", "mine", "--json"]) == 0
    capsys.readouterr()
    (samples,) = Path("mine").glob("cells/*/attempt-1/samples.parquet")
    samples.write_bytes(b"damaged")
    assert main(["report", "mine", "--json"]) == 3
    (verdict,) = json.loads(capsys.readouterr().out)["verdicts"]
    assert verdict["outcome"] == "ERROR"
    assert "SHA-256" in verdict["reason"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny.fastr"], "no gate or suite is called 'tiny.fastr'"),
        (["--target", "vm", "tiny"], "--suites works with --target host only"),
        (["--resume", "nowhere"], "nowhere is not a run directory"),
    ],
)
def test_wrong_input_leaves_nothing_behind(
    suites: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["validate", *words]) == 64
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_broken_toml_is_named_with_its_line(
    suites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (suites / "tiny" / "suite.toml").write_text("id = \n")
    assert main(["validate"]) == 64
    assert "suite.toml: broken TOML" in capsys.readouterr().err


@pytest.mark.parametrize("kernel", ["6.13", "defaul", "./no-such-bzImage"])
def test_an_unknown_kernel_is_bad_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kernel: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["validate", "--kernel", kernel]) == 64
    assert len(capsys.readouterr().err.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


def _start(directory: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "hyperbox", "validate", *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_tidies_up_and_can_be_resumed(
    suites: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    work = suites.parent / "work.py"
    work.write_text("import os, time\nopen('pids', 'a').write(f'{os.getpid()} ')\ntime.sleep(600)")
    process = _start(suites.parent, "tiny.faster", "--run-directory", "mine")
    pids = suites.parent / "pids"
    while not (pids.exists() and pids.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == b""
    assert err.decode().splitlines()[-2:] == [
        "hyperbox: interrupted",
        f"hint: go on with: hyperbox validate --resume mine --target host --suites {suites}",
    ]
    assert not Path(f"/proc/{pids.read_text().split()[0]}").exists()
    assert json.loads(Path("mine/run.json").read_text())["status"] == "interrupted"
    assert list(Path("mine").glob("cells/*/*")) == []
    work.write_text(_WORK)
    assert main(["validate", "--resume", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdicts"][0]["outcome"] == "PASS"
    assert json.loads(Path("mine/run.json").read_text())["status"] == "complete"


def test_a_reader_that_goes_away_does_not_change_the_exit_code(suites: Path) -> None:
    process = _start(suites.parent, "tiny.much_faster")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait() == 1
    assert b"Traceback" not in err


def test_a_dry_run_tells_the_plan_and_leaves_nothing(
    suites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(suites.parent.rglob("*"))
    assert main(["validate", "--dry-run", "tiny.faster", "--jobs", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (cell,) = shown.pop("cells")
    assert cell == {
        "key": "host--tiny.work--host",
        "kernel": "host",
        "experiment": "tiny.work",
        "lane": "host",
        "arms": ["off", "on"],
        "gates": ["tiny.faster"],
        "blocks": 8,
        "expected_blocks": None,
        "seconds": None,
        "cpu_seconds": None,
        "basis": None,
        "limit_s": 1485.0,
    }
    assert (shown["jobs"], shown["unknown_cells"], shown["recorded"]) == (2, 1, [])
    assert (shown["seconds"], shown["cpu_seconds"]) == (None, None)
    assert main(["validate", "--dry-run", "tiny", "--jobs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == (
        ["experiment", "kernel", "lane", "arms", "blocks", "time", "CPU", "time", "known", "from"]
    )
    assert lines[1].split()[:6] == ["tiny.setting", "host", "host", "2", "8", "unknown"]
    assert lines[-1] == "2 cells, 2 at once: nothing is known of the time they take"
    assert sorted(suites.parent.rglob("*")) == before
    assert main(["validate", "--dry-run", "tiny.fastr"]) == 64
    assert "no gate or suite is called" in capsys.readouterr().err


def test_what_a_run_took_is_known_to_the_next(
    suites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "tiny.faster", "--run-directory", "mine", "--json"]) == 0
    capsys.readouterr()
    assert main(["validate", "--dry-run", "--blocks", "16", "--jobs", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    unknown, known = shown["cells"]
    assert (unknown["experiment"], unknown["basis"]) == ("tiny.setting", None)
    assert (known["experiment"], known["basis"]) == ("tiny.work", "its last run")
    assert known["expected_blocks"] == known["blocks"] == 16
    assert shown["seconds"] == pytest.approx(known["seconds"], abs=0.2)
    assert known["seconds"] > 0
    assert shown["unknown_cells"] == 1
    assert main(["validate", "--dry-run", "--resume", "mine"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "0 cells to measure, 1 on record: nothing is left to do"
    )
    assert main(["validate", "--dry-run", "--resume", "mine", "tiny.faster"]) == 64
    (kept,) = (suites.parent / "cache" / "costs").iterdir()
    kept.write_bytes(kept.read_bytes()[:-20])  # cut short: as good as absent
    assert main(["validate", "--dry-run", "tiny.faster"]) == 0
    assert "nothing is known" in capsys.readouterr().out.splitlines()[-1]
