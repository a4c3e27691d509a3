"""Containers in the background: listed, read, entered, ended, removed; and after a SIGKILL."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyperbox.repair import left_behind

DONE = subprocess.CompletedProcess[str]
HYPERBOX = (sys.executable, "-m", "hyperbox")
SERVE = "trap 'echo heard; exit 7' TERM; echo ready; while :; do sleep 0.1; done"

pytestmark = pytest.mark.root


def hyperbox(*words: str) -> DONE:
    return subprocess.run(
        [*HYPERBOX, *words], capture_output=True, text=True, check=False, timeout=60
    )


def listed() -> dict[str, dict[str, object]]:
    return {one["name"]: one for one in json.loads(hyperbox("ps", "--all", "--json").stdout)}


@pytest.fixture
def start(rootfs: Path) -> Iterator[Callable[..., DONE]]:
    def call(*command: str, options: tuple[str, ...] = ()) -> DONE:
        return hyperbox("run", "-d", *options, "--rootfs", os.fspath(rootfs), "--", *command)

    yield call
    for name, facts in listed().items():
        if facts["state"] == "running":
            hyperbox("rm", "--force", name)


def test_a_container_from_its_start_to_its_removal(start: Callable[..., DONE]) -> None:
    started = start("sh", "-c", SERVE, options=("--name", "web"))
    assert (started.returncode, started.stdout) == (0, "web\n"), started.stderr
    assert start("true", options=("--name", "web")).returncode == 64
    assert listed()["web"]["state"] == "running"
    assert "web" in hyperbox("ps").stdout
    inside = hyperbox(
        "exec", "--container", "w", "--", "sh", "-c", "grep Seccomp: /proc/self/status"
    )
    assert inside.stdout.split() == ["Seccomp:", "2"]
    assert hyperbox("exec", "--container", "web", "--", "sh", "-c", "exit 9").returncode == 9
    assert hyperbox("exec", "--container", "web", "--", "nosuch").returncode == 127
    assert hyperbox("rm", "web").returncode == 64
    assert hyperbox("stop", "web").stdout == "web\n"
    assert hyperbox("logs", "--follow", "web").stdout == "ready\nheard\n"
    assert listed()["web"] | {"created": ""} == {
        "name": "web",
        "state": "exited",
        "status": 7,
        "created": "",
        "command": ["sh", "-c", SERVE],
        "rootfs": listed()["web"]["rootfs"],
    }
    assert hyperbox("exec", "--container", "web", "--", "true").returncode == 64
    assert hyperbox("rm", "web").stdout == "web\n"
    assert listed() == {}
    assert hyperbox("logs", "web").returncode == 64


def test_one_that_ignores_sigterm_is_killed(start: Callable[..., DONE]) -> None:
    assert start("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done").returncode == 0
    (name,) = listed()
    assert hyperbox("stop", "--time", "0.2", name).returncode == 0
    assert listed()[name]["status"] == 137


@pytest.mark.parametrize(("command", "status"), [("nosuch", 127), ("/text", 126)])
def test_one_that_cannot_start_says_so_and_leaves_nothing(
    start: Callable[..., DONE], command: str, status: int
) -> None:
    failed = start(command)
    assert failed.returncode == status
    assert "was not started" in failed.stderr
    assert listed() == {}


def test_one_that_ends_at_once_has_started(start: Callable[..., DONE]) -> None:
    assert start("echo", "done", options=("--name", "short")).returncode == 0
    deadline = time.monotonic() + 10
    while listed()["short"]["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert listed()["short"]["status"] == 0
    assert hyperbox("logs", "short").stdout == "done\n"


def test_after_a_sigkill_it_is_lost_and_repaired(start: Callable[..., DONE]) -> None:
    assert start("sleep", "600", options=("--name", "gone")).returncode == 0
    state = Path(os.environ["HYPERBOX_STATE"]) / "journal"
    (journal,) = state.glob("*.jsonl")
    os.kill(int(journal.name.partition(".")[0]), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while listed()["gone"]["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert listed()["gone"]["state"] == "lost"
    assert hyperbox("rm", "gone").returncode == 64
    assert "container gone" in hyperbox("doctor", "--repair").stdout
    assert left_behind() == ()
    assert not list(state.glob("runtime/bundle-*"))
    assert hyperbox("rm", "gone").returncode == 0
    assert listed() == {}


def test_a_terminal_is_the_commands(rootfs: Path) -> None:
    pid, terminal = pty.fork()
    if not pid:
        script = "tty; stty size; exit 4"
        words = ("run", "-t", "--rootfs", os.fspath(rootfs), "--", "sh", "-c", script)
        os.execv(sys.executable, [*HYPERBOX, *words])
    said = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while data := os.read(terminal, 4096):
            said += data
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    assert b"/dev/pts/0" in said
