"""The command line: one line per error, its exit code, and quick help."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import ExitCode


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ([], "no verb given", "known: "),
        (["validte"], "no verb 'validte'", "did you mean validate"),
        (["--colour"], "following arguments are required", "--help"),
        (["validate", "--colour"], "unrecognized arguments: --colour", "--help"),
        (["validate", "--targe", "host"], "unrecognized arguments", "--help"),
        (["validate", "--lane", "slow"], "invalid choice: 'slow'", "hyperbox validate --help"),
        (["validate", "--jobs", "0"], "--jobs must be a whole number from 1 up", ""),
        (["report", "/nonexistent"], "/nonexistent is not a run directory", "validate"),
    ],
)
def test_bad_usage_is_one_line_and_a_hint(
    words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == ExitCode.BAD_USAGE
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("hyperbox: error: ")
    assert message in lines[0]
    assert len(lines) == (2 if hint else 1)
    assert hint in lines[-1]


def test_an_error_quotes_no_escape_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "/\x1b[2J\x9b31m\u202eno\nhyperbox: all is well"]) == ExitCode.BAD_USAGE
    text = capsys.readouterr().err
    assert not {"\x1b", "\x9b", "\u202e"} & set(text)
    assert [line.split(":")[0] for line in text.splitlines()] == ["hyperbox", "hint"]


@pytest.mark.parametrize("words", [["--help"], ["validate", "--help"], ["--version"]])
def test_help_and_version_exit_with_0(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    assert "hyperbox" in capsys.readouterr().out


def test_help_imports_no_heavy_package() -> None:
    program = (
        "import sys; from hyperbox.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'scipy', 'matplotlib', 'rich', 'qemu'}\n"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(("into", "status", "said"), [("/dev/full", 3, 1), ("&-", 0, 0)])
@pytest.mark.parametrize("more", ["", "--json"])
def test_output_that_cannot_be_written_is_one_line(
    into: str, status: int, said: int, more: str
) -> None:
    command = f"{sys.executable} -m hyperbox kernels list {more} >{into}"
    done = subprocess.run(command, shell=True, check=False, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (status, said), done.stderr


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = f"{sys.executable} -m hyperbox doctor --json"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"], capture_output=True, check=False
    )
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


def test_signal_that_comes_while_a_verb_is_imported_is_heard() -> None:
    program = """
import os, signal, sys
from hyperbox.cli.main import main

def in_a_callback(frame, event, argument):  # where Python drops exceptions
    if event == "call" and frame.f_code.co_name == "cb":
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)

sys.setprofile(in_a_callback)
sys.exit(main(["psi", "--watch"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, b"hyperbox: interrupted\n")
