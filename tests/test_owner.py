"""Processes told apart: recycled numbers, other boots, zombies."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hyperbox.owner import Owner, this_process


def test_this_process_lives_and_knows_itself() -> None:
    owner = this_process()
    assert owner.pid == os.getpid()
    assert owner.start > 0
    assert owner.lives()
    assert owner.booted_now()


def test_a_recycled_number_is_another_process() -> None:
    owner = this_process()
    assert not replace(owner, start=owner.start - 1).lives()


def test_nothing_lives_on_after_a_boot() -> None:
    owner = replace(this_process(), boot="00000000-0000-0000-0000-000000000000")
    assert not owner.lives()
    assert not owner.booted_now()


def test_a_process_of_another_pid_namespace_may_live() -> None:
    assert replace(this_process(), pid=1 << 30, namespace=1).lives()


def test_a_killed_process_is_dead_before_it_is_reaped() -> None:
    process = subprocess.Popen(["sleep", "600"])
    here = this_process()
    start = _start(process.pid)
    owner = Owner(process.pid, start, here.namespace, here.boot)
    assert owner.lives()
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert not owner.lives()
    process.wait()
    assert not owner.lives()


def test_a_forked_child_is_itself() -> None:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, str(this_process().pid).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(readable, 32)) == child
    os.close(readable)
    os.close(writable)


def _start(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.mark.root
def test_a_process_of_another_user_lives() -> None:
    process = subprocess.Popen(["sleep", "600"], user=65534)
    try:
        here = this_process()
        assert Owner(process.pid, _start(process.pid), here.namespace, here.boot).lives()
    finally:
        process.kill()
        process.wait()
