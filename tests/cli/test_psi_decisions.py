"""``psi decisions``: times as people write them, what is shown, and what is not there."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.cli.psi_decisions import moment
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.memory.audit import AuditEntry, Trail, as_line
from hyperbox.memory.decisions import Action, Decision, TunerState

NOW = datetime(2026, 11, 25, 14, 30, 20)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("12:03", NOW.replace(hour=12, minute=3, second=0)),
        ("2:03:09", NOW.replace(hour=2, minute=3, second=9)),
        ("23:00", NOW.replace(day=24, hour=23, minute=0, second=0)),
        ("2026-10-01 12:03", datetime(2026, 10, 1, 12, 3)),
        ("2026-10-01T12:03:04", datetime(2026, 10, 1, 12, 3, 4)),
        ("90s", NOW - timedelta(seconds=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
    ],
)
def test_times_are_what_people_mean(text: str, wanted: datetime) -> None:
    assert moment(text, NOW)[0] == wanted


@pytest.mark.parametrize(
    "text",
    [
        *("", "noon", "25:00", "12:60", "-5m", "5 m", "9999999d", "12:3"),
        *("999999d", "0001-01-01", "9999-12-31 23:59"),  # no clock of a machine says these
    ],
)
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a time"):
        moment(text, NOW)


@pytest.fixture
def trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """A trail: a step of an hour ago that was kept and given back, and one that goes on."""
    monkeypatch.setenv("HYPERBOX_STATE", str(tmp_path))
    began = time.time() - 3600
    made = Trail(tmp_path / "decisions.jsonl")
    hold, normal = TunerState.HOLD, TunerState.NORMAL
    for second, decision in (
        (
            0,
            Decision(
                1, hold, Action.APPLY, "swappiness", "score 91.2 above 80", 91.2, 50.0, 91.2, 700.0,
                ("vm.swappiness 60 -> 100",),
            ),
        ),
        (20, Decision(2, hold, Action.KEEP, "swappiness", "score 91.2 -> 43.0")),
        (
            900,
            Decision(
                3, normal, Action.RESTORE, "swappiness", "calm",
                changes=("vm.swappiness back to 60",),
            ),
        ),
        (3000, Decision(4, hold, Action.APPLY, "damon", "score 85.0 above 80")),
    ):  # fmt: skip
        made.add(AuditEntry(began + second, 77, decision))
    return began


def clock(unix_s: float) -> str:
    return time.strftime("%H:%M", time.localtime(unix_s))


def test_one_command_says_why_and_what_happened_then(
    trail: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["psi", "decisions", "--at", clock(trail), "--about", "swappiness"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "apply swappiness" in lines[0]
    assert "score 91.2 above 80" in lines[0]
    assert "memory 50.0 %, storage 91.2 %, 700 pages/s back from disk swap" in lines[1]
    assert "vm.swappiness 60 -> 100" in lines[2]
    assert "keep: score 91.2 -> 43.0" in lines[3]
    assert "restore: calm; vm.swappiness back to 60" in lines[4]
    assert len(lines) == 5


def test_json_is_whole(trail: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["psi", "decisions", "--json"]) == ExitCode.PASS
    reported = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["step"] for one in reported] == ["swappiness", "damon"]
    assert [one["action"] for one in reported[0]["then"]] == ["keep", "restore"]
    assert reported[0]["time_unix_s"] == pytest.approx(trail, abs=0.01)
    when = datetime.fromisoformat(reported[0]["time"])
    assert when.timestamp() == pytest.approx(trail, abs=1)


def test_windows_and_names_narrow_it(trail: float, capsys: pytest.CaptureFixture[str]) -> None:
    for words, steps in (
        (["--since", "20m"], ["damon"]),
        (["--until", "20m"], ["swappiness"]),
        (["--since", "50m", "--until", "40m"], ["swappiness"]),  # given back in it
        (["--about", "vm.swap"], ["swappiness"]),
        (["--last", "1"], ["damon"]),
        (["--at", "2d"], []),
    ):
        assert main(["psi", "decisions", "--json", *words]) == ExitCode.PASS
        reported = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [one["step"] for one in reported] == steps, words


def test_nothing_is_said_to_be_nothing(
    trail: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["psi", "decisions", "--at", "2d"]) == ExitCode.PASS
    assert "nothing was decided then" in capsys.readouterr().out
    assert main(["psi", "decisions", "--last", "1"]) == ExitCode.PASS
    assert "1 earlier ones: --last 2" in capsys.readouterr().out
    monkeypatch.setenv("HYPERBOX_STATE", str(tmp_path / "none"))
    assert main(["psi", "decisions"]) == ExitCode.PASS
    assert "no tuner has decided anything yet" in capsys.readouterr().out
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "decisions.jsonl").write_bytes(b"\xff" * 100)
    assert main(["psi", "decisions"]) == ExitCode.PASS
    assert "holds no decision that can be read" in " ".join(capsys.readouterr().out.split())


def test_a_terminal_is_told_nothing_by_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decision = Decision(0, TunerState.HOLD, Action.APPLY, "step", "why\x1b[31m[bold]")
    file = tmp_path / "trail"
    file.write_text(as_line(AuditEntry(1e9, 1, decision)) + "\n")
    assert main(["psi", "decisions", "--file", str(file)]) == ExitCode.PASS
    assert "why\ufffd[31m[bold]" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["--at", "x"],
        ["--at", "1h", "--since", "2h"],
        ["--since", "1h", "--until", "2h"],
        ["--last", "0"],
        ["--file", "/nonexistent"],
    ],
)
def test_bad_usage_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["psi", "decisions", *words]) == ExitCode.BAD_USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("hyperbox: error: ")
