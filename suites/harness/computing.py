"""Loads on processor, system calls and processes.

Where a loop of Python makes objects, the addresses of the heap decide about 2 % of its time:
how an arena lies against a multiple of its size says which way `address_in_range` takes for
each object that goes. The computing here makes none, since small numbers exist already.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from hyperbox.errors import WorkloadError
from suites.harness.load import Load, Ready

__all__ = ["PROCESSES", "PROCESSOR", "SYSTEM_CALLS"]

_NUMBERS = tuple(range(16)) * 32  # no result above 256, up to which Python keeps its numbers
_CALLS = 10  # three cheap ones and a pair of dearer ones, in a unit
_DEVICE = "/dev/null"
_PROGRAM = "/usr/bin/true"


@contextlib.contextmanager
def _processor() -> Iterator[Ready]:
    yield Ready(_compute)


def _compute() -> int:
    total = 0
    for number in _NUMBERS:
        total = number * number + 1
    return total


@contextlib.contextmanager
def _system_calls() -> Iterator[Ready]:
    yield Ready(_call)


def _call() -> None:
    for _ in range(_CALLS):
        os.getppid()
        os.getppid()
        os.getppid()
        os.close(os.open(_DEVICE, os.O_RDONLY))


@contextlib.contextmanager
def _processes() -> Iterator[Ready]:
    yield Ready(_one_process)


def _one_process() -> None:
    pid = os.posix_spawn(_PROGRAM, [_PROGRAM], {})
    if os.waitpid(pid, 0)[1] != 0:
        raise WorkloadError(f"{_PROGRAM} failed")


PROCESSOR = Load(1000, _processor)
SYSTEM_CALLS = Load(3000, _system_calls)
PROCESSES = Load(200, _processes)
