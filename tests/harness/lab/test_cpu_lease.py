"""Guests get CPUs of their own while there are any, whichever program starts them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from hyperbox.harness.lab.cpu_lease import leased_cpu

_NAME = f"hyperbox-test-{os.getpid()}"
_HOLD = f"""
from hyperbox.harness.lab import cpu_lease
cpu_lease._NAME = "{_NAME}"
with cpu_lease.leased_cpu() as cpu:
    print(cpu, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests of other programs on this machine hold CPUs, too."""
    monkeypatch.setattr("hyperbox.harness.lab.cpu_lease._NAME", _NAME)


def test_each_guest_gets_another_cpu_until_none_is_left() -> None:
    allowed = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        got = [stack.enter_context(leased_cpu()) for _ in allowed]
        assert set(got) == allowed
        assert stack.enter_context(leased_cpu()) in allowed
    with leased_cpu() as cpu:
        assert cpu == min(allowed)


def test_another_program_s_cpu_is_left_to_it_until_it_ends() -> None:
    command = [sys.executable, "-c", _HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        if len(os.sched_getaffinity(0)) > 1:
            with leased_cpu() as mine:
                assert mine != theirs
        other.kill()
    with leased_cpu() as mine:
        assert mine == theirs


def test_errors_of_the_block_are_not_swallowed() -> None:
    with pytest.raises(FileNotFoundError), leased_cpu():
        raise FileNotFoundError("of the block")
