"""The harness is ended while its guests run: nothing of them stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.vm

_REPAIR = [sys.executable, "-m", "hyperbox", "doctor", "--repair", "--json"]
_ELSEWHERE = ["unshare", "--pid", "--fork", "--mount-proc"]


def _guests(parent: int) -> list[int]:
    """Return the QEMU processes with a guest that a process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                own = (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(parent)
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if own and b"qemu-system" in words[0] and b"-kernel" in words:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _running_guests(process: subprocess.Popen[bytes]) -> list[int]:
    """Return its guests as soon as there are some."""
    while not (guests := _guests(process.pid)):
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.05)
    return guests


def _gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Return a validation of minutes with a guest; which kernel runs in it changes nothing here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    words = [
        "validate",
        "psi.pressure_reduction",
        "--kernel",
        "7.3",
        "--run-directory",
        "runs/1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "hyperbox", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _running_guests(process)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_harness_takes_its_guests_along(
    running: subprocess.Popen[bytes], number: signal.Signals, tmp_path: Path
) -> None:
    guests = _guests(running.pid)
    running.send_signal(number)
    running.communicate(timeout=120)
    assert running.returncode == 130
    assert _gone(guests)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert json.loads(Path("runs/1/run.json").read_text())["status"] == "interrupted"


def _removed(words: Sequence[str]) -> list[str]:
    said = subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout
    removed: list[str] = json.loads(said)["removed"]
    return removed


@pytest.mark.root
def test_what_a_harness_holds_is_let_be_until_it_is_killed(
    running: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    half = Path("runs/1/cells/key/.attempt-1-1")
    half.mkdir(parents=True)
    # From another pid namespace nobody else seems to live. The guest may be another one by then:
    # what boots is kept as a snapshot, and a clone of it is what is measured.
    assert _removed([*_ELSEWHERE, *_REPAIR]) == []
    assert half.exists()
    guests = _running_guests(running)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    assert _gone(guests)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert _removed([*_ELSEWHERE, *_REPAIR]) == [str(half)]
    assert not half.exists()
