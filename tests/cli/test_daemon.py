"""``hyperbox daemon``: options, and what it needs before it starts. It runs in tests/daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import ExitCode


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--listen", "here"], "'here' is not an address to listen on", "IP:PORT"),
        (["--socket", "none", "--listen", "none"], "nowhere to listen", ""),
        (["--interval", "0"], "--interval must be a number from 0.01 to 86400, not '0'", ""),
        (["--interval", "nan"], "--interval must be a number from 0.01 to 86400", ""),
        (["--tune", "--interval", "0.5"], "an interval of 0.5 s cannot be tuned by", "300"),
        (["--tune", "--dry-run"], "--tune and --dry-run exclude each other", ""),
        (["--act", "70"], "--act is for tuning", "--tune"),
        (["--tune", "--act", "7000"], "--act must be a number from 1 to 100, not '7000'", ""),
        (["--config", "/nonexistent"], "cannot read /nonexistent", ""),
        (["--listen", "0.0.0.0:0", "--socket", "none"], "other machines", "--allow-remote"),
    ],
)
def test_bad_usage_is_one_line_and_a_hint(
    words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["daemon", *words]) == ExitCode.BAD_USAGE
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert message in lines[0]
    assert len(lines) == (2 if hint else 1)
    assert hint in lines[-1]


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("[daemon]\nsocket = 'none'\nlisten = ['none']\n", [], "nowhere to listen"),
        ("[daemon]\ntune = true\n", ["--dry-run"], "--tune and --dry-run exclude each other"),
        ("[daemon]\ntune = true\n[tuner]\nact = 30\n", [], "thresholds out of order"),
        ("[daemon]\ntune = true\ninterval = 0.5\n", [], "an interval of 0.5 s cannot be tuned by"),
        ("[daemon]\nlisten = ['0.0.0.0:0']\n", ["--socket", "none"], "other machines"),
    ],
)
def test_its_file_is_read_and_only_if_it_is_named(
    text: str,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hyperbox.toml").write_text(text)
    assert main(["daemon", "--config", "hyperbox.toml", *words]) == ExitCode.BAD_USAGE
    assert message in capsys.readouterr().err
    assert main(["daemon", *words]) == ExitCode.BAD_USAGE
    assert "in a file that only lies in the current directory" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["psi", "--help"], ["daemon", "--help"]])
def test_help_loads_no_web_server(words: list[str]) -> None:
    done = run(
        "import sys; from hyperbox.cli.main import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'uvicorn', 'starlette', 'prometheus_client', 'asyncio'} & sys.modules.keys()\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert done.returncode == 0, done.stderr
