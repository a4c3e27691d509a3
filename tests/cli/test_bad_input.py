"""Bad input through the command line: one clear line, a defined exit code, the rest reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import ExitCode

DATA = Path(__file__).parents[1] / "harness" / "report" / "data"
OLD, NEW = DATA / "schema-1", DATA / "schema-2"
HURT = "6.12--psi.pressure_reduction--exact"
HURT_GATES = 3
FORMS = ("report.html", "report.md", "junit.xml", "summary.json", "verdicts.csv", "kcidb.json")

Output = pytest.CaptureFixture[str]


@pytest.fixture(params=[OLD, NEW], ids=["schema-1", "schema-2"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    shutil.copytree(request.param, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    shutil.copytree(NEW, tmp_path / "run")
    return tmp_path / "run"


def record(run: Path) -> Path:
    return run / "cells" / HURT / "attempt-1" / "record.json"


def refused(words: list[str], output: Output) -> tuple[int, list[str]]:
    """Run a command that prints nothing but an error and its hint; return its code and lines."""
    code = main(words)
    shown = output.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[0].startswith("hyperbox: error: ")
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2
    return code, lines


def as_link(path: Path) -> None:
    path.symlink_to("nowhere")


def as_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("verb", ["report", "merge", "compare"])
@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (Path.mkdir, "no run.json"),
        (Path.touch, "it is not a directory"),
        (lambda path: None, "no run.json"),
        (as_link, "no run.json"),
        (as_loop, "Too many levels of symbolic links"),
        (lambda path: (path / "run.json").mkdir(parents=True), "its run.json is not a file"),
    ],
)
def test_what_is_no_run_is_bad_usage(
    verb: str, make: Callable[[Path], object], shown: str, tmp_path: Path, capsys: Output
) -> None:
    place = tmp_path / "place"
    make(place)
    more = {"merge": ["--output", str(tmp_path / "out")], "compare": ["--kernels", "a", "b"]}
    code, lines = refused([verb, str(place), *more.get(verb, [])], capsys)
    assert code == ExitCode.BAD_USAGE
    assert shown in lines[0]
    assert str(place) in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_too_long_is_bad_usage(capsys: Output) -> None:
    code, lines = refused(["report", "x" * 5000], capsys)
    assert code == ExitCode.BAD_USAGE
    assert "File name too long" in lines[0]


@pytest.mark.parametrize("version", [99, 3, 0, -1])
def test_unknown_schema_versions_are_named(run: Path, version: int, capsys: Output) -> None:
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**document, "schema_version": version}))
    code, lines = refused(["report", str(run), "--json"], capsys)
    assert code == ExitCode.HARNESS_ERROR
    assert f"{run / 'run.json'} has schema version {version}" in lines[0]
    assert ("use a newer hyperbox" in lines[1]) is (version > 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))


def no_text(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"state"', b'"\xffstate"'))


def doubled(path: Path) -> None:
    path.write_text(path.read_text().replace("{", '{"state": "failed",', 1))


def nan(path: Path) -> None:
    path.write_text(path.read_text().replace('"count": ', '"count": NaN, "was": ', 1))


@pytest.mark.parametrize("damage", [empty, half, newer, no_text, doubled, nan, as_loop])
def test_a_damaged_record_is_told_in_every_form(
    sealed: Path, damage: Callable[[Path], None], capsys: Output
) -> None:
    if damage is as_loop:
        record(sealed).unlink()
    damage(record(sealed))
    assert main(["report", str(sealed), "--json"]) == ExitCode.HARNESS_ERROR
    shown = capsys.readouterr()
    assert shown.err == ""
    document = json.loads(shown.out)
    outcomes = [verdict["outcome"] for verdict in document["verdicts"]]
    assert outcomes.count("ERROR") == HURT_GATES
    assert outcomes.count("PASS") == 8 - HURT_GATES
    assert len(document["problems"]) == 1
    assert str(record(sealed)) in document["problems"][0]
    for form in FORMS:
        assert "attempt-1/record.json" in (sealed / "report" / form).read_text(), form


def test_damage_is_told_on_the_terminal_and_to_github(
    run: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    half(record(run))
    assert main(["report", str(run)]) == ExitCode.HARNESS_ERROR
    lines = capsys.readouterr().out.splitlines()
    place = next(at for at, line in enumerate(lines) if line.startswith("damage: "))
    assert str(record(run)) in lines[place]
    assert lines[place + 1].startswith("hint: restore what is damaged")
    assert main(["report", str(run), "--github"]) == ExitCode.HARNESS_ERROR
    assert "::error title=Unreadable::" in capsys.readouterr().out


def test_a_damaged_record_holds_up_who_would_build_on_it(sealed: Path, capsys: Output) -> None:
    half(record(sealed))
    code, lines = refused(["reproduce", str(sealed)], capsys)
    assert code == ExitCode.HARNESS_ERROR
    assert str(record(sealed)) in lines[0]
    assert f"take away {record(sealed).parents[1]}" in lines[1]


def test_damage_stays_damage_in_a_merged_run(sealed: Path, tmp_path: Path, capsys: Output) -> None:
    half(record(sealed))
    argv = ["merge", str(sealed), "--output", str(tmp_path / "whole"), "--json"]
    assert main(argv) == ExitCode.HARNESS_ERROR
    document = json.loads(capsys.readouterr().out)
    assert [v["outcome"] for v in document["verdicts"]].count("ERROR") == HURT_GATES
    assert "is not JSON" in document["problems"][0]


def test_shards_with_one_cell_twice(sealed: Path, tmp_path: Path, capsys: Output) -> None:
    twin, output = tmp_path / "twin", tmp_path / "whole"
    shutil.copytree(sealed, twin)
    words = ["merge", str(sealed), str(twin), "--output", str(output)]
    assert main(words) == ExitCode.PASS  # the same bytes
    shutil.rmtree(output)
    capsys.readouterr()
    half(record(twin))
    code, lines = refused(words, capsys)
    assert code == ExitCode.BAD_USAGE
    assert f"both measured {HURT}" in lines[0]
    assert not output.exists()


def test_runs_of_other_kernels(sealed: Path, tmp_path: Path, capsys: Output) -> None:
    other = tmp_path / "other"
    shutil.copytree(OLD, other)
    text = (other / "run.json").read_text()
    (other / "run.json").write_text(text.replace('"6.12"', '"5.10"').replace('"7.3"', '"6.1"'))
    code, lines = refused(["compare", str(sealed), str(other)], capsys)
    assert code == ExitCode.BAD_USAGE
    assert "kernel" in lines[0]
    code, lines = refused(["compare", str(sealed), "--kernels", "6.12", "9.9"], capsys)
    assert code == ExitCode.BAD_USAGE
    assert "9.9" in lines[0]
    assert main(["report", str(sealed), "--history", str(other)]) == ExitCode.PASS
    capsys.readouterr()
    assert main(["report", str(other), "--json"]) == ExitCode.HARNESS_ERROR
    document = json.loads(capsys.readouterr().out)
    assert {verdict["outcome"] for verdict in document["verdicts"]} == {"ERROR"}
    assert len([p for p in document["problems"] if "belongs to no cell" in p]) == 4


def test_a_run_with_a_name_that_is_no_text(tmp_path: Path, capsys: Output) -> None:
    place = tmp_path / os.fsdecode(b"run-\xff\xfe")
    shutil.copytree(NEW, place)
    (place / "cells" / os.fsdecode(b"\xff")).mkdir()
    for options in ([], ["--json"]):
        assert main(["report", str(place), *options]) == ExitCode.PASS
        capsys.readouterr().out.encode()
    for form in FORMS:
        (place / "report" / form).read_text(encoding="utf-8")


def test_a_terminal_without_the_letters_is_no_failure(sealed: Path) -> None:
    command = [sys.executable, "-m", "hyperbox", "report", str(sealed)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"PASS" in done.stdout


@pytest.mark.root
@pytest.mark.parametrize("name", ["run.json", f"cells/{HURT}", f"cells/{HURT}/attempt-1"])
def test_what_may_not_be_read_is_named(name: str, capsys: Output) -> None:
    with tempfile.TemporaryDirectory() as place, _as_nobody(Path(place), NEW, name) as directory:
        code = main(["report", str(directory), "--json"])
        shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    if name == "run.json":
        assert code == ExitCode.HARNESS_ERROR
        assert "run.json: Permission denied" in shown.err
    else:
        assert code == ExitCode.HARNESS_ERROR
        assert "Permission denied" in json.loads(shown.out)["problems"][0]


@pytest.mark.root
def test_a_directory_that_may_not_be_entered_is_named(capsys: Output) -> None:
    with tempfile.TemporaryDirectory() as place, _as_nobody(Path(place), NEW, ".") as directory:
        code, lines = refused(["report", str(directory)], capsys)
    assert code == ExitCode.BAD_USAGE
    assert "Permission denied" in lines[0]


class _as_nobody:
    """A copy of a run that another user sees, but for one file or directory of it."""

    def __init__(self, place: Path, frozen: Path, kept: str) -> None:
        self.run = place / "run"
        shutil.copytree(frozen, self.run)
        place.chmod(0o755)
        for path in (self.run, *self.run.rglob("*")):
            os.chown(path, 65534, 65534)
        os.chown(self.run / kept, 0, 0)
        (self.run / kept).chmod(0o700 if (self.run / kept).is_dir() else 0o600)

    def __enter__(self) -> Path:
        os.setegid(65534)
        os.seteuid(65534)
        return self.run

    def __exit__(self, *error: object) -> None:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def summary_of(
    sealed: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> Callable[[Path], tuple[int, Any, str]]:
    """Report with a job summary at a place; return code, standard output and error."""

    def report(place: Path) -> tuple[int, Any, str]:
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
        code = main(["report", str(sealed), "--json"])
        shown = capsys.readouterr()
        return code, json.loads(shown.out), shown.err

    return report


def test_a_job_summary_that_cannot_be_written_is_one_line(
    tmp_path: Path, summary_of: Callable[[Path], tuple[int, Any, str]]
) -> None:
    code, document, shown = summary_of(tmp_path)
    assert code == ExitCode.HARNESS_ERROR
    assert document["exit_code"] == 0
    assert f"cannot write the job's summary {tmp_path}: Is a directory" in shown
    assert shown.splitlines()[1].startswith("hint: ")


def test_a_job_summary_is_appended_to_whatever_it_is(
    tmp_path: Path, summary_of: Callable[[Path], tuple[int, Any, str]]
) -> None:
    real, link = tmp_path / "summary", tmp_path / "link"
    real.write_bytes(b"\xff of an earlier step")
    link.symlink_to(real)
    assert summary_of(link)[0] == ExitCode.PASS
    assert summary_of(link)[0] == ExitCode.PASS
    assert link.is_symlink()
    assert real.read_bytes().startswith(b"\xff of an earlier step\n# \xe2\x9c\x93 Passed")
    assert real.read_bytes().count(b"\n# \xe2\x9c\x93 Passed") == 2


def test_a_full_job_summary_stays_as_it_is(
    tmp_path: Path, summary_of: Callable[[Path], tuple[int, Any, str]]
) -> None:
    """GitHub drops the whole summary of a step beyond 1 MiB."""
    path = tmp_path / "summary"
    path.write_bytes(b"x" * ((1 << 20) - 10))
    code, _, shown = summary_of(path)
    assert code == ExitCode.PASS
    assert "summary is full" in shown
    assert path.stat().st_size <= 1 << 20
    path.write_bytes(b"x" * ((1 << 20) - 500))
    assert summary_of(path)[0] == ExitCode.PASS
    assert (1 << 20) - 200 < path.stat().st_size <= 1 << 20


@pytest.fixture
def interrupted_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let Ctrl-C arrive while a file is being written: at the n-th flush to the disk."""
    flush, left = os.fsync, [0]

    def fsync(handle: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGINT)
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    yield lambda number: left.__setitem__(0, number)
    monkeypatch.undo()


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("number", [1, 4, 15])
def test_an_interrupt_leaves_each_file_whole(
    sealed: Path, number: int, interrupted_at: Callable[[int], None], capsys: Output
) -> None:
    assert main(["report", str(sealed)]) == ExitCode.PASS
    before = contents(sealed)
    half(record(sealed))
    capsys.readouterr()
    interrupted_at(number)
    assert main(["report", str(sealed)]) == ExitCode.INTERRUPTED
    shown = capsys.readouterr()
    assert (shown.out, shown.err.splitlines()[0]) == ("", "hyperbox: interrupted")
    interrupted = contents(sealed)
    interrupted_at(0)
    assert main(["report", str(sealed)]) == ExitCode.HARNESS_ERROR
    after = contents(sealed)
    assert interrupted.keys() <= after.keys()
    for path, content in interrupted.items():
        assert content in (before.get(path), after[path])


@pytest.mark.parametrize("number", [1, 2, 9])
def test_an_interrupted_merge_leaves_nothing(
    sealed: Path, number: int, interrupted_at: Callable[[int], None], tmp_path: Path
) -> None:
    interrupted_at(number)
    argv = ["merge", str(sealed), "--output", str(tmp_path / "whole")]
    assert main(argv) == ExitCode.INTERRUPTED
    assert not (tmp_path / "whole").exists()
