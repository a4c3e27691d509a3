"""Children get a clean environment, never outlive their parent, and end on time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hyperbox.errors import HarnessError, MissingDependency
from hyperbox.processes import end_started, require, run, spawn, stop


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
    assert not [line for line in said if line.startswith(("LD_PRELOAD_TEST", "LANG=", "PWD="))]


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


def test_a_child_whose_parent_was_killed_before_the_death_signal_was_set_ends(
    tmp_path: Path,
) -> None:
    slow = tmp_path / "setpriv"
    here, go = tmp_path / "here", tmp_path / "go"
    wait = f"echo $$ > {here}.new; mv {here}.new {here}; until [ -e {go} ]; do sleep 0.01; done"
    slow.write_text(f'#!/bin/sh\n{wait}\nexec {require("setpriv", "util-linux")} "$@"\n')
    slow.chmod(0o755)
    ran = tmp_path / "ran"
    program = (
        "import time; from hyperbox.processes import spawn; "
        f"spawn(['sh', '-c', 'touch {ran}; exec sleep 600']); time.sleep(600)"
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    parent = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PATH": path})
    while not here.exists():
        time.sleep(0.01)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    go.touch()
    child = int(here.read_text())
    try:
        assert _until_gone(child)
        assert not ran.exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


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


def test_what_another_thread_has_started_can_be_ended_alone() -> None:
    with ThreadPoolExecutor(1) as executor:
        theirs = executor.submit(spawn, ["sh", "-c", "sleep 600 & wait"]).result()
        thread = executor.submit(threading.get_ident).result()
        ours = spawn(["sleep", "600"])
        try:
            end_started(thread)
            assert theirs.wait(60) == -signal.SIGKILL
            assert ours.poll() is None
            end_started()
            assert ours.wait(60) == -signal.SIGKILL
            end_started()  # harmless when they have ended
        finally:
            stop(theirs)
            stop(ours)
