"""Children get a clean environment, never outlive their parent, and end on time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hyperbox.errors import HarnessError, MissingDependency
from hyperbox.processes import require, run, spawn, stop


def _gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def _until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while not _gone(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_streams_and_status_come_back() -> None:
    done = run(["sh", "-c", "cat; echo err >&2; exit 3"], timeout=20, check=False, data=b"in\n")
    assert (done.status, done.stdout, done.stderr) == (3, b"in\n", b"err\n")
    assert done.text() == "in"


def test_a_failed_command_is_named_ready_to_paste() -> None:
    with pytest.raises(HarnessError, match=r"exit status 4: sh -c 'echo \"a b\" >&2; exit 4': a b"):
        run(["sh", "-c", 'echo "a b" >&2; exit 4'], timeout=20)


def test_death_by_signal_is_a_negative_status() -> None:
    assert run(["sh", "-c", "kill -9 $$"], timeout=20, check=False).status == -9


def test_the_environment_is_sanitised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_TEST", "1")
    monkeypatch.setenv("LANG", "de_DE")
    said = run(["env"], timeout=20, environment={"EXTRA": "yes"}).text().splitlines()
    assert "EXTRA=yes" in said
    assert "LC_ALL=C.UTF-8" in said
    assert not [line for line in said if line.startswith(("LD_PRELOAD_TEST", "LANG="))]


def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {note}; wait"
    with pytest.raises(HarnessError, match=r"no end after 0\.5 s"):
        run(["sh", "-c", script], timeout=0.5)
    assert _until_gone(int(note.read_text()))


def test_a_child_dies_with_its_killed_parent(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = (
        "import sys, time; from pathlib import Path; from hyperbox.processes import spawn\n"
        f"Path({str(note)!r}).write_text(str(spawn(['sleep', '600']).pid)); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    while not (note.exists() and note.read_text()):
        time.sleep(0.01)
    child = int(note.read_text())
    while Path(f"/proc/{child}/comm").read_text() != "sleep\n":
        time.sleep(0.01)  # setpriv has not handed over yet
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert _until_gone(child)


def test_stop_is_harmless_when_repeated() -> None:
    process = spawn(["sleep", "600"], stdout=subprocess.PIPE)
    stop(process)
    stop(process)
    assert process.returncode == -signal.SIGKILL


def test_a_child_leads_a_session_of_its_own() -> None:
    process = spawn(["sleep", "600"])
    try:
        assert os.getsid(process.pid) == process.pid
    finally:
        stop(process)


def test_missing_programs_are_named_with_the_package() -> None:
    with pytest.raises(MissingDependency, match="no-such-tool is not installed") as caught:
        require("no-such-tool", "tool-package")
    assert caught.value.hint.endswith("tool-package")
    with pytest.raises(MissingDependency, match="no such program"):
        run(["no-such-tool"], timeout=5)
    assert require("sh", "dash").endswith("/sh")
