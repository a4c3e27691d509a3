"""The monitor of a real QEMU that has no guest: it starts in a moment."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.harness.lab.exit_evidence import what_happened
from hyperbox.harness.lab.monitor import Monitor, MonitorError
from hyperbox.harness.lab.post_mortem import examine_remains, halted
from hyperbox.harness.lab.qemu import find_qemu
from hyperbox.processes import spawn, stop

pytestmark = pytest.mark.vm


@contextlib.contextmanager
def empty_machine(
    limit: float = 60.0, beat: float = 10.0
) -> Iterator[tuple[subprocess.Popen[bytes], Monitor]]:
    ours, theirs = socket.socketpair()
    words = [str(find_qemu().program), "-M", "none", "-nodefaults", "-display", "none"]
    words += ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]
    with theirs:
        process = spawn(words, pass_fds=[theirs.fileno()])
    stopped = functools.partial(halted, process)
    monitor = Monitor(ours, limit, beat=beat, hopeless=stopped)
    try:
        monitor.connect(60)
        yield process, monitor
    finally:
        stop(process)
        monitor.close()


def _halt(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    while not halted(process):
        time.sleep(0.01)


def test_commands_are_answered_or_refused() -> None:
    with empty_machine() as (_, monitor):
        assert monitor.command("query-status")["running"]
        with pytest.raises(MonitorError, match="no-such-command"):
            monitor.command("no-such-command")
        assert not monitor.mute


def test_qemu_that_was_late_once_is_not_waited_for_again() -> None:
    with empty_machine(limit=3600.0) as (process, monitor):
        _halt(process)
        with pytest.raises(MonitorError, match=r"no answer within 0\.1 s"):
            monitor.command("query-status", limit=0.1)
        assert monitor.mute
        with pytest.raises(MonitorError, match="has not answered before"):
            monitor.command("query-status")  # would take an hour


def test_a_stopped_qemu_is_not_waited_for_beyond_a_beat() -> None:
    with empty_machine(limit=3600.0, beat=0.1) as (process, monitor):
        _halt(process)
        with pytest.raises(MonitorError, match=r"no answer within 0\.1 s"):
            monitor.command("query-status")
        assert monitor.mute


def test_a_qemu_that_goes_on_within_the_beat_answers() -> None:
    with empty_machine(limit=3600.0, beat=2.0) as (process, monitor):
        _halt(process)
        threading.Timer(0.2, process.send_signal, (signal.SIGCONT,)).start()
        assert monitor.command("query-status")["running"]


def test_qemu_that_does_not_greet_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    monitor = Monitor(ours, 3600.0)
    with theirs, contextlib.closing(monitor):
        with pytest.raises(MonitorError, match=r"no answer within 0\.1 s"):
            monitor.connect(0.1)
        assert monitor.mute


def test_a_shutdown_is_its_last_word() -> None:
    with empty_machine() as (process, monitor):
        monitor.forget_events()
        os.kill(process.pid, signal.SIGTERM)
        process.wait()
        assert [event["event"] for event in monitor.last_words()] == ["SHUTDOWN"]
        with pytest.raises(MonitorError):
            monitor.command("query-status")
        assert not monitor.mute


def test_a_stopped_qemu_is_examined_without_a_question() -> None:
    with empty_machine(limit=3600.0) as (process, monitor):
        _halt(process)
        remains = examine_remains(process, monitor)
        assert (remains.halted, remains.status, remains.mute) == ("by a signal", None, False)


def test_a_qemu_that_ended_is_examined_by_its_status() -> None:
    with empty_machine() as (process, monitor):
        process.kill()
        remains = examine_remains(process, monitor)
        assert (remains.halted, remains.status, remains.mute) == ("", -signal.SIGKILL, False)


def test_a_qemu_that_is_about_to_end_has_the_time_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperbox.harness.lab.post_mortem._DYING_S", 0.0)
    with empty_machine() as (qemu, monitor):
        qemu.kill()
        qemu.wait()
        leaving = spawn(["sleep", "1"])
        try:
            assert examine_remains(leaving, monitor).status == 0
        finally:
            stop(leaving)


@contextlib.contextmanager
def _frozen(pid: int) -> Iterator[None]:
    """Keep a process from running without stopping it: it looks asleep, as one that hangs."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [Path(words[1]) for words in mounts if words[2] == "cgroup2"]
    if not roots:
        pytest.skip("no cgroup2 is mounted")
    group = roots[0] / f"hyperbox-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(pid))
        (group / "cgroup.freeze").write_text("1")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"nothing can be frozen here: {error}")
    while "frozen 1" not in (group / "cgroup.events").read_text():
        time.sleep(0.01)
    try:
        yield
    finally:
        (group / "cgroup.freeze").write_text("0")
        (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


@pytest.mark.root
def test_a_qemu_that_hangs_is_asked_once_and_told_from_a_silent_guest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hyperbox.harness.lab.post_mortem._QUESTION_S", 0.3)
    with empty_machine(limit=3600.0) as (process, monitor):
        with _frozen(process.pid):
            remains = examine_remains(process, monitor)
            examine_remains(process, monitor)
        assert (remains.halted, remains.status, remains.mute) == ("", None, True)
        assert what_happened("silent", remains).fingerprint.startswith("QEMU hangs")
