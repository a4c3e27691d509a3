"""The harness is ended while its guests run: nothing of them stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Each start of hyperbox removes what dead ones left: it would be gone before `doctor` sees it.
pytestmark = [pytest.mark.vm, pytest.mark.alone]


def _qemus(parent: int) -> list[int]:
    """Return the QEMU processes that a process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            if name.startswith("qemu-system") and int(rest.split()[1]) == parent:
                found.append(int(entry.name))
    return found


def _files(pid: int, scratch: Path) -> list[Path]:
    return [p for place in (Path("/dev/shm"), scratch) for p in place.glob(f"hyperbox-{pid}-*")]


def _gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.fixture(params=["5.10", "7.3"])
def running(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[bytes]]:
    """Return a validation whose guest is booting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    words = ["validate", "psi.accuracy", "--kernel", request.param, "--run-directory", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hyperbox", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        while not (_qemus(process.pid) and _files(process.pid, tmp_path)):  # not a --version
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_harness_takes_its_guests_along(
    running: subprocess.Popen[bytes], number: signal.Signals, tmp_path: Path
) -> None:
    guests = _qemus(running.pid)
    running.send_signal(number)
    running.communicate(timeout=120)
    assert running.returncode == 130
    assert _gone(guests)
    assert _files(running.pid, tmp_path) == []
    assert json.loads(Path("run/run.json").read_text())["status"] == "interrupted"


def test_guests_die_with_a_killed_harness_and_repair_removes_their_files(
    running: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    guests = _qemus(running.pid)
    assert guests
    os.kill(running.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    assert _gone(guests)
    left = _files(running.pid, tmp_path)
    assert left
    repair = [sys.executable, "-m", "hyperbox", "doctor", "--repair", "--json"]
    said = subprocess.run(repair, stdout=subprocess.PIPE, check=False).stdout
    assert _files(running.pid, tmp_path) == []
    assert {str(path) for path in left} <= set(json.loads(said)["removed"])
