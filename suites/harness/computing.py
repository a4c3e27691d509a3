"""Loads on processor, system calls and processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from hyperbox.errors import WorkloadError
from suites.harness.load import Load, Ready

__all__ = ["PROCESSES", "PROCESSOR", "SYSTEM_CALLS"]

_ROUNDS = 500  # additions and products in a unit
_CALLS = 10  # three cheap ones and a pair of dearer ones, in a unit
_PROGRAM = "/usr/bin/true"


@contextlib.contextmanager
def _processor() -> Iterator[Ready]:
    yield Ready(_compute)


def _compute() -> int:
    total = 0
    for number in range(_ROUNDS):
        total += number * number
    return total


@contextlib.contextmanager
def _system_calls() -> Iterator[Ready]:
    yield Ready(_call)


def _call() -> None:
    for _ in range(_CALLS):
        os.getppid()
        os.getppid()
        os.getppid()
        os.close(os.open("/dev/null", os.O_RDONLY))


@contextlib.contextmanager
def _processes() -> Iterator[Ready]:
    yield Ready(_one_process)


def _one_process() -> None:
    pid = os.posix_spawn(_PROGRAM, [_PROGRAM], {})
    if os.waitpid(pid, 0)[1] != 0:
        raise WorkloadError(f"{_PROGRAM} failed")


PROCESSOR = Load(1000, _processor)
SYSTEM_CALLS = Load(1000, _system_calls)
PROCESSES = Load(200, _processes)
