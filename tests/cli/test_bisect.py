"""``hyperbox bisect``: what it refuses, what it lists, and two real searches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyperbox.cli.bisect import answer_line
from hyperbox.cli.main import main
from hyperbox.files import write_sealed
from hyperbox.harness.lab.kernel_kit import kernels_directory
from hyperbox.harness.lab.kernel_lock import read_lock
from hyperbox.harness.model import Outcome
from hyperbox.harness.runs.bisection import Answer, Mark
from hyperbox.harness.runs.bisection_log import BisectionLog, Candidate, Question, candidate
from hyperbox.harness.runs.bisector import judge_for
from hyperbox.harness.runs.loading import load_run
from hyperbox.harness.runs.progress import ProgressDisplay

NOBODY = "http://127.0.0.1:9/debian"  # port 9: nothing listens


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of a mirror, fetched just now: three kernels, of one the modules are not named."""
    monkeypatch.setenv("HYPERBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HYPERBOX_DEBIAN_MIRROR", NOBODY)
    names = [
        ("image-6.12.90+deb13", "6.12.90-1"),
        ("image-6.14.2+deb13", "6.14.2-1"),
        ("binary-6.15.3+deb13", "6.15.3-1"),
    ]
    packages = [
        {
            "name": f"linux-{name}-cloud-amd64",
            "version": version,
            "sha256": "0" * 64,
            "size": 20_000_000,
            "suite": "trixie",
            "filename": f"pool/{name}.deb",
        }
        for name, version in names
    ]
    document = {"mirror": NOBODY, "suites": [], "left_out": [], "packages": packages}
    write_sealed(kernels_directory() / "apt" / "packages.json", document)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--good", "6.14", "--", "true"], "--good and --bad are needed"),
        (["--good", "6.14", "--bad", "6.15"], "either a --gate or a command decides"),
        (["--gate", "psi.accuracy", "--good", "6.14", "--bad", "6.15", "x"], "either a --gate"),
        (["--gate", "psi.acuracy", "--good", "6.14", "--bad", "6.15"], "'psi.acuracy'"),
        (["--gate", "psi", "--good", "6.14", "--bad", "6.15"], "psi is a suite: one gate decides"),
        (["--good", "6.14", "--bad", "6.13", "x"], "no packaged kernel '6.13'"),
        (["--good", "6.14", "--bad", "6.14.2", "x"], "good and bad are the same kernel: 6.14.2-1"),
        (["--good", "6.14", "--bad", "6.15", "--put", "x:/y", "x"], "--put: no file x"),
        (["--good", "6.14", "--bad", "6.15", "--timeout", "0", "x"], "--timeout must be more"),
        (["--resume", "nowhere"], "nowhere is not a bisection"),
        (["--resume", "nowhere", "--good", "6.14"], "a resumed bisection keeps its question"),
        (["--resume", "nowhere", "--crash", "bad"], "crash cannot be changed"),
        (["--resume", "nowhere", "--timeout", "9"], "timeout cannot be changed"),
        (["--resume", "nowhere", "--put", "x:/y"], "put cannot be changed"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    lists: None, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bisect", *words]) == 64
    said = capsys.readouterr().err.splitlines()
    assert message in said[0]
    assert len(said) <= 2
    assert not Path("runs").exists()


def test_the_row_is_listed_with_what_nobody_vouches_for(
    lists: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bisect", "--list", "--good", "6.12.90", "--bad", "6.15"]
    assert main([*words, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["kernels"]
    ends = row[0]["version"], row[-1]["version"]
    assert ends == ("6.12.90-1", "6.15.3-1")
    assert [one["vouched"] for one in row][-2:] == [True, False]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "6.14.2+deb13-cloud-amd64" in said
    assert "no signed list names its modules" in said


def test_the_answer_names_package_and_version(tmp_path: Path) -> None:
    row = [Candidate(f"6.{n}.0-1", f"6.{n}.0", f"linux-image-6.{n}.0", True) for n in range(4)]
    question = Question("6.0", "6.3", "fast", command=("true",))
    log = BisectionLog(tmp_path, question, row, ())
    assert answer_line(log, Answer(1, (2,))) == (
        "first bad: 6.2.0-1 (linux-image-6.2.0); last good: 6.1.0-1 (linux-image-6.1.0)"
    )
    assert "one of 2 from 6.2.0-1 to 6.3.0-1" in answer_line(log, Answer(1, (2, 3)))
    back = BisectionLog(tmp_path, question, row[::-1], ())
    assert answer_line(back, Answer(1, (2,))) == (
        "last bad: 6.1.0-1 (linux-image-6.1.0); first good: 6.2.0-1 (linux-image-6.2.0)"
    )


def _log(directory: Path, question: Question, *series: str) -> BisectionLog:
    return BisectionLog.create(directory, question, [candidate(read_lock()[s]) for s in series])


@pytest.mark.vm
def test_a_command_is_bisected_over_real_kernels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_leftovers: None
) -> None:
    program = tmp_path / "judge"
    program.write_text("#!/bin/sh\nuname -r\ntest $(uname -r | cut -d. -f1) -lt 7\n")
    program.chmod(0o755)
    question = Question(
        "5.10", "7.3", "fast", command=("/tmp/judge",), files=((str(program), "/tmp/judge"),)
    )
    log = _log(tmp_path / "bisection", question, "5.10", "6.12", "7.3")
    assert main(["bisect", "--resume", str(log.directory), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["first_bad"][0]["version"] == read_lock()["7.3"].version
    assert shown["last_good"]["version"] == read_lock()["6.12"].version
    assert [one["mark"] for one in shown["tries"]] == ["good", "bad", "good"]
    for one in shown["tries"]:
        output = (log.directory / one["directory"] / "output.log").read_text()
        assert one["version"].partition("-")[0].rpartition(".")[0] in output
    assert main(["bisect", "--resume", str(log.directory)]) == 0
    assert shown["answer"] in capsys.readouterr().out


@pytest.mark.vm
def test_a_crash_is_marked_as_asked_and_keeps_its_console(tmp_path: Path) -> None:
    crash = ("sh", "-c", "echo c > /proc/sysrq-trigger")
    question = Question("6.12", "7.3", "fast", command=crash, crash="bad")
    log = _log(tmp_path, question, "6.12")
    with ProgressDisplay() as display:
        found = judge_for(question, display)(log.row[0], log.place_of_evidence(0))
    assert found.mark is Mark.BAD
    assert "sysrq_handle_crash" in found.reason
    assert "sysrq triggered crash" in (log.place_of_evidence(0) / "console.log").read_text()


@pytest.mark.vm
def test_a_gate_judges_through_a_run_that_can_be_gone_on_with(tmp_path: Path) -> None:
    question = Question("6.12", "7.3", "fast", gate="psi.accuracy", blocks=1)
    log = _log(tmp_path, question, "6.12", "7.3")
    with ProgressDisplay() as display:
        judge = judge_for(question, display)
        where = log.place_of_evidence(0)
        found = judge(log.row[0], where)
        (verdict,) = load_run(where).verdicts
        marks = {Outcome.PASS: Mark.GOOD, Outcome.FAIL: Mark.BAD}
        assert found.mark is marks.get(verdict.outcome, Mark.SKIP)
        assert found.reason == f"{verdict.outcome}: {verdict.reason}"
        assert verdict.kernel == log.row[0].version
        assert judge(log.row[0], where) == found  # killed before it was on record
