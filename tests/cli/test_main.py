"""The command line: one line per error, its exit code, and quick help."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def _ended(program: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, **settings
    )


@pytest.mark.parametrize(
    ("bug", "shown"),
    [
        ("psi.Sampler = None", "TypeError: 'NoneType' object is not callable"),
        ("psi.add_tuning = len", "TypeError: object of type"),
        ("sys.modules['hyperbox.cli.psi'] = None", "ModuleNotFoundError: import of hyperbox.cli"),
        ("psi.system_files = lambda: psi.system_files()", "RecursionError: "),
        ("psi.system_files = lambda: os.write(writing, b'x')", "BrokenPipeError: "),
        ("psi.system_files = lambda: exec('raise OSError(\"\\x1b[2J\")')", "OSError: \ufffd[2J"),
    ],
)
def test_a_crash_of_ours_is_3_and_not_a_failed_gate(bug: str, shown: str) -> None:
    done = _ended(f"""
import os, sys
from hyperbox.cli import psi
from hyperbox.cli.main import main
reading, writing = os.pipe()
os.close(reading)
{bug}
sys.exit(main(["psi"]))
""")
    assert done.returncode == ExitCode.HARNESS_ERROR, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Traceback ")
    assert lines[-2].startswith(shown) or lines[-3].startswith(shown)
    assert "this is a bug in hyperbox" in lines[-1]


@pytest.mark.parametrize("words", ["--help", "validate --help", "--version", "psi", "kernels list"])
def test_output_that_nobody_reads_ends_as_by_sigpipe(words: str) -> None:
    command = f"set -o pipefail; {{ sleep 0.3; {sys.executable} -m hyperbox {words}; }} | true"
    # Unbuffered, argparse itself drops the error of its write.
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_letter_that_the_terminal_lacks_is_no_failure() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "hyperbox", "report", "/\N{SNOWMAN}"],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == ExitCode.BAD_USAGE
    assert b"/\\u2603 is not a run directory" in done.stderr


def test_a_current_directory_that_is_gone_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = _ended(
        "import os, sys; from hyperbox.cli.main import main\n"
        "os.rmdir(os.getcwd()); sys.exit(main(['kernels', 'list']))",
        cwd=gone,
        env={**os.environ, "HYPERBOX_CACHE": "cache", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (done.returncode, done.stdout) == (ExitCode.HARNESS_ERROR, "")
    assert done.stderr.splitlines() == [
        "hyperbox: error: no current directory: No such file or directory",
        "hint: cd elsewhere",
    ]
