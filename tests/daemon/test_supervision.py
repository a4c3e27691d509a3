"""Descriptors outlive the processes that hold them: under our supervisor, and under systemd."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperbox.daemon.descriptor_store import keep
from hyperbox.processes import spawn, stop
from tests.daemon.conftest import PATIENCE_S, PROJECT
from tests.daemon.systemd_manager import CannotRun, managed

HOLDER = Path(__file__).with_name("descriptor_holder.py")
SUPERVISED = [sys.executable, "-m", "hyperbox.daemon.supervisor"]
UNIT = f"""
[Service]
Type=notify
Environment=PYTHONHOME=/opt/python PYTHONPATH=/opt/hyperbox:/opt/packages
Environment=LD_LIBRARY_PATH=/opt/python/lib PYTHONDONTWRITEBYTECODE=1
ExecStart=/opt/python/bin/python{sysconfig.get_python_version()} \
    /opt/hyperbox/tests/daemon/descriptor_holder.py /run/fifo /run/out
TimeoutStartSec=60
Restart=on-failure
RestartSec=0
FileDescriptorStoreMax=8
"""


def eventually(ask: Callable[[], Any]) -> Any:
    """Return the first true answer; what is not there yet is not an answer."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, LookupError, ValueError):
            if found := ask():
                return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


@contextlib.contextmanager
def supervised(*argv: str, outlive: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program under the supervisor for the block."""
    options = ["--outlive"] if outlive else []
    process = spawn(
        [*SUPERVISED, *options, "--", *argv], environment={"PYTHONPATH": str(PROJECT)}, stderr=2
    )
    try:
        yield process
    finally:
        stop(process)


def held_through_two_deaths(fifo: Path, out: Path, kill: Callable[[int], object]) -> None:
    """Write to a pipe while its reader is killed twice, and find that nothing is lost."""

    def said() -> list[dict[str, Any]]:
        return [json.loads(line) for line in out.read_text().splitlines()]

    write = eventually(lambda: os.open(fifo, os.O_WRONLY))
    os.write(write, b"one")
    first = eventually(said)[0]
    kill(first["pid"])
    os.write(write, b"two")  # nobody reads now: it would be EPIPE if nobody held the pipe
    second = eventually(lambda: said()[1])
    kill(second["pid"])
    os.write(write, b"three")
    third = eventually(lambda: said()[2])
    os.close(write)
    assert len({one["pid"] for one in (first, second, third)}) == 3
    found = [(one["starts"], one["data"], one["names"]) for one in (first, second, third)]
    assert found == [
        (1, "one", []),
        (2, "two", ["memory", "pipe"]),
        (3, "three", ["memory", "pipe"]),
    ]
    for one in (first, second, third):
        assert (one["leaked"], one["inheritable"]) == ([], False)


def killed(pid: int) -> None:
    """Kill a process and wait until it is gone: one that dies may still take what is written."""
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_supervisor_gives_descriptors_to_the_next_process(tmp_path: Path) -> None:
    fifo, out = tmp_path / "fifo", tmp_path / "out"
    with supervised(sys.executable, str(HOLDER), str(fifo), str(out)) as process:
        held_through_two_deaths(fifo, out, killed)
        assert process.wait(PATIENCE_S) == 0  # as its program, which saw the end of the pipe


@pytest.mark.root
def test_systemd_gives_descriptors_to_the_next_process(tmp_path: Path) -> None:
    place = tmp_path / "manager"
    place.mkdir()
    try:
        with managed(place, {"holder.service": UNIT}) as manager:
            manager.systemctl("start", "--no-block", "holder.service")
            run = manager.root / "run"
            restarts = itertools.count(1)

            def kill(_pid: int) -> None:
                manager.systemctl("kill", "--signal=SIGKILL", "holder.service")
                manager.until("holder.service", "NRestarts", str(next(restarts)))

            held_through_two_deaths(run / "fifo", run / "out", kill)
            manager.until("holder.service", "ActiveState", "inactive")
            assert manager.shown("holder.service", "Result") == "success"
    except CannotRun as reason:
        pytest.skip(str(reason))


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("outlive", [False, True])
def test_program_outlives_its_supervisor_only_where_it_should(
    tmp_path: Path, outlive: bool
) -> None:
    fifo, out = tmp_path / "fifo", tmp_path / "out"
    with supervised(sys.executable, str(HOLDER), str(fifo), str(out), outlive=outlive) as process:
        write = eventually(lambda: os.open(fifo, os.O_WRONLY))
        (pid,) = children(process.pid)
        os.write(write, b"supervised")
        assert json.loads(eventually(out.read_text))["pid"] == pid
        process.kill()
        process.wait()
        if outlive:
            os.write(write, b"alone")
            assert json.loads(eventually(lambda: out.read_text().splitlines()[1]))["pid"] == pid
            os.close(write)
        eventually(lambda: not Path(f"/proc/{pid}/fd/0").exists())


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 3", 3), ("exit 64", 64), ("kill -KILL $$", 137)],
)
def test_program_that_never_was_ready_is_not_started_again(
    tmp_path: Path, script: str, status: int
) -> None:
    marks = tmp_path / "marks"
    with supervised("sh", "-c", f"echo >> {marks}; {script}") as process:
        assert process.wait(PATIENCE_S) == status
    assert marks.read_text() == "\n"


def test_signal_ends_the_program_first(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'echo ended > {ready}; exit 5' TERM; echo > {ready}; sleep 1000 & wait"
    with supervised("sh", "-c", script) as process:
        eventually(ready.exists)
        process.terminate()
        assert process.wait(PATIENCE_S) == 5
    assert ready.read_text() == "ended\n"


def test_only_its_program_may_speak_to_a_supervisor(tmp_path: Path) -> None:
    reported = tmp_path / "reported"
    script = f"echo $NOTIFY_SOCKET > {reported}.new; mv {reported}.new {reported}; sleep 1000"
    with supervised("sh", "-c", script) as process:
        address = "\0" + eventually(reported.read_text).strip()[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.connect(address)
            for data in (b"READY=1", b"FDSTORE=1\nFDNAME=x", b"\xff=\n=", b"x" * 5000):
                with socket.socket() as handed:
                    socket.send_fds(other, [data], [handed.fileno()])
        handles = Path(f"/proc/{process.pid}/fd")
        # Those that it holds are its own: three streams, the channel, the pipe of signals.
        eventually(lambda: len(list(handles.iterdir())) <= 6)
        (pid,) = children(process.pid)
        os.kill(pid, signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 137  # it was never ready


@pytest.mark.parametrize("name", ["", "a:b", "a b", "é", "x" * 256, "a\n"])
def test_names_that_no_supervisor_takes(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        keep(name, 0)


def test_without_a_supervisor_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert keep("name", 0) is False
