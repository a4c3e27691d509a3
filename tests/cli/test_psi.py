"""The psi verb: now, tuned dry, recorded, replayed; bad usage is one line."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.cli.psi import _page, bars
from hyperbox.console import TerminalConsole
from hyperbox.errors import ExitCode
from hyperbox.linux.pressure import PROC_PRESSURE, Resource, cgroup_files
from hyperbox.memory.psi import Sampler
from hyperbox.processes import spawn, stop

has_pressure = pytest.mark.skipif(
    not (PROC_PRESSURE / "memory").exists(), reason="this kernel has no pressure files"
)


def test_bars_show_every_height_and_the_newest_last() -> None:
    assert bars((0, 1, 13, 50, 87.4, 87.6, 100), width=9) == "  ·▁▂▅▇██"
    assert bars((100, 0, 100), width=2) == "·█"


@has_pressure
def test_now_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["psi", "--json"]) == ExitCode.PASS
    said = json.loads(capsys.readouterr().out)
    assert {"some_cpu_us", "some_memory_us", "full_memory_us"} <= said.keys()


@has_pressure
def test_now_as_a_table_says_which_resource_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["psi"]) == ExitCode.PASS
    out = capsys.readouterr().out
    assert "memory" in out
    assert ("irq pressure: not given" in out) is not (PROC_PRESSURE / "irq").exists()


def test_cgroup_is_read_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "avg10=0.00 avg60=0.00 avg300=0.00 total=4711"
    for name in ("cpu", "memory", "io"):
        (tmp_path / f"{name}.pressure").write_text(f"some {line}\nfull {line}\n")
    assert main(["psi", "--json", "--cgroup", str(tmp_path)]) == ExitCode.PASS
    assert json.loads(capsys.readouterr().out)["some_memory_us"] == 4711


@has_pressure
def test_recorded_trace_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["psi", "record", "--interval", "1", "--count", "2"]) == ExitCode.PASS
    trace = tmp_path / "trace.jsonl"
    trace.write_text(capsys.readouterr().out)
    assert main(["psi", "simulate", str(trace), "--json"]) == ExitCode.PASS
    decisions = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [decision["action"] for decision in decisions] == ["nothing", "nothing"]


def test_replay_shows_what_would_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = 1_000_000_000
    lines = [
        json.dumps(
            {
                "time_ns": (1 + 5 * n) * second,
                "memory_some_us": 4_500_000 * n,
                "memory_full_us": 0,
                "io_some_us": 0,
            }
        )
        for n in range(8)
    ]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("\n".join(lines))
    assert main(["psi", "simulate", str(trace)]) == ExitCode.PASS
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[:-1]] == ["0.0", "10.0", "25.0", "30.0"]
    assert out[-1] == "8 readings over 35 s: highest score 90.0, 2 steps tried, 1 kept"
    assert "apply page-cache" in out[1]
    assert "score 90.0 above 80 for 2 readings" in out[1]


@has_pressure
def test_dry_run_says_what_it_cannot_do_and_changes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    swaps = Path("/proc/swaps").read_text()
    assert main(["psi", "tune", "--dry-run", "--count", "1"]) == ExitCode.PASS
    out = capsys.readouterr().out
    assert out.startswith("dry run: nothing is changed\n")
    assert "not page-cache: no cgroup is named as streaming" in out
    assert Path("/proc/swaps").read_text() == swaps


@has_pressure
@pytest.mark.parametrize(
    "words", [["tune", "--dry-run", "--json", "--all"], ["record"], ["--watch", "--json"]]
)
def test_signal_is_the_usual_end(words: list[str]) -> None:
    process = spawn(
        [sys.executable, "-m", "hyperbox", "psi", *words],
        environment={"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        json.loads(process.stdout.readline())
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == ExitCode.PASS
        assert process.stderr.read() == b""
    finally:
        stop(process)


@pytest.fixture
def saturated(tmp_path: Path) -> Path:
    """A cgroup that could not be worse off, with every line that there can be."""
    line = "avg10=100.00 avg60=100.00 avg300=100.00 total=12345678901234"
    directory = tmp_path / "a-service-with-a-long-name.service"
    directory.mkdir()
    for resource in Resource:
        (directory / f"{resource}.pressure").write_text(f"some {line}\nfull {line}\n")
    return directory


def test_name_of_a_cgroup_is_text_whatever_it_says(
    tmp_path: Path,
    saturated: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "\x1b]0;owned\x07 [bold]:boom:[/x]\nall is well"
    Path(name).parent.mkdir()
    saturated.rename(name)
    for columns, shown in (
        ("60", "…/x] all"),
        ("200", "\ufffd]0;owned\ufffd [bold]:boom:[/x] all"),
    ):
        monkeypatch.setenv("COLUMNS", columns)
        assert main(["psi", "--cgroup", name]) == ExitCode.PASS
        text = capsys.readouterr().out
        assert not {"\x1b", "\x07"} & set(text)
        assert shown in text


@pytest.mark.parametrize("columns", [24, 30, 40, 60, 79, 80, 200])
def test_every_width_is_readable_when_pressure_is_at_its_worst(
    columns: int,
    saturated: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["psi", "--cgroup", str(saturated)]) == ExitCode.PASS
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    rows = [line for line in lines if "memory " in line]
    assert len(rows) == 2
    assert all(row.count("100.0") >= 2 and "…" not in row for row in rows)


@pytest.mark.parametrize(("rows", "columns"), [(40, 27), (40, 60), (12, 80), (40, 120)])
def test_live_view_keeps_every_row_whatever_the_window(
    rows: int, columns: int, saturated: Path
) -> None:
    console = TerminalConsole(width=columns, height=rows, record=True, file=io.StringIO())
    with Sampler(cgroup_files(saturated)) as sampler:
        sampler.sample()
        sampler.sample()
        console.print(_page(sampler, 5.0, str(saturated), console))
    lines = console.export_text().splitlines()
    assert len(lines) <= rows
    assert max(map(len, lines)) <= columns
    assert sum("some" in line or "full" in line for line in lines) == 2 * len(Resource)
    assert not any("…" in line for line in lines if "some" in line or "full" in line)


class Terminal:
    """A terminal with a program in it, of a size that can be changed."""

    def __init__(self, argv: list[str], rows: int, columns: int) -> None:
        self._handle, other = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            stdin=other,
            stdout=other,
            stderr=other,
            env=os.environ | {"TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        os.close(other)
        self.shown = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._handle, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._handle, keys)

    def until(self, text: bytes) -> None:
        """Read until it shows a text after all that has been waited for."""
        deadline = time.monotonic() + 60
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._handle], [], [], 1)[0]:
                self.shown += os.read(self._handle, 65_536)
        self.shown = self.shown.partition(text)[2]

    def end(self) -> int:
        """Read until the program ends; return its exit status."""
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while data := os.read(self._handle, 65_536):
                self.shown += data
        os.close(self._handle)
        return self.process.wait(60)


@has_pressure
def test_window_that_changes_is_drawn_anew_at_once_and_the_last_table_stays() -> None:
    argv = [sys.executable, "-m", "hyperbox", "psi", "--watch", "--interval", "600"]
    terminal = Terminal(argv, 30, 40)
    try:
        terminal.until(b"\x1b[?1049h")  # a screen of its own: a new size leaves no old lines
        terminal.until(b"Ctrl-C ends")
        terminal.resize(30, 120)
        terminal.until(b"kernel 10 s")  # though the next sample is ten minutes away
        terminal.until(b"Ctrl-C ends")
        terminal.type(b"\x03")
        terminal.until(b"\x1b[?1049l")
        terminal.until(b"since boot")
        assert terminal.end() == ExitCode.PASS
        assert b"Traceback" not in terminal.shown
    finally:
        terminal.process.kill()
        terminal.process.wait()


@has_pressure
def test_terminal_that_cannot_move_its_cursor_still_shows_every_sample() -> None:
    process = spawn(
        [sys.executable, "-m", "hyperbox", "psi", "--watch", "--interval", "0.1"],
        environment={"TERM": "dumb", "FORCE_COLOR": "1"},  # rich takes it for a terminal then
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        titles = 0
        for line in process.stdout:
            titles += b"of time lost" in line
            if titles == 3:
                break
        os.kill(process.pid, signal.SIGINT)
        process.stdout.read()
        assert process.wait(60) == ExitCode.PASS
        assert process.stderr.read() == b""
    finally:
        stop(process)


@has_pressure
@pytest.mark.parametrize("more", ["", " --json"])
def test_reader_that_goes_away_is_no_failed_gate(more: str) -> None:
    command = f"{sys.executable} -m hyperbox psi --watch --interval 0.05{more} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["psi", "--interval", "0"], "--interval '0' is not a time"),
        (["psi", "--cgroup", "/nonexistent"], "no directory /nonexistent"),
        (["psi", "--cgroup", "/dev"], "/dev is not a cgroup"),
        (["psi", "record", "--cgroup", "/dev"], "/dev is not a cgroup"),
        (["psi", "tune", "--cgroup", "/dev", "--dry-run"], "/dev is not a cgroup"),
        (["psi", "simulate", "/dev/null"], "/dev/null holds no reading"),
        (["psi", "simulate", "/dev/zero"], "a line is longer than a reading can be"),
        (["psi", "tune", "--swappiness", "10"], "--swappiness must be a whole number from"),
        (["psi", "tune", "--count", "0"], "--count '0'"),
        (["psi", "tune", "--config", "/nonexistent.toml"], "cannot read /nonexistent.toml"),
        (["psi", "simulate", "/nonexistent"], "cannot read /nonexistent"),
        (["psi", "simulate"], "required: TRACE"),
        (["psi", "tine"], "invalid choice: 'tine'"),
    ],
)
def test_bad_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == ExitCode.BAD_USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err.splitlines()[0]


def test_wrong_trace_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"time_ns": 1}\n')
    assert main(["psi", "simulate", str(trace)]) == ExitCode.BAD_USAGE
    assert f"{trace}, line 1" in capsys.readouterr().err
