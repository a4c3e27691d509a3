"""Loads on processor, system calls and processes.

Where a loop of Python makes objects, the addresses of the heap decide about 2 % of its time:
how an arena lies against a multiple of its size says which way `address_in_range` takes for
each object that goes. The computing here makes none, since small numbers exist already.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from hyperbox.errors import WorkloadError
from hyperbox.linux.refusal import refusal
from suites.harness.load import BackgroundLoad, Ready

__all__ = ["PROCESSES", "PROCESSOR", "SYSTEM_CALLS"]

_NUMBERS = tuple(range(16)) * 32  # no result above 256, up to which Python keeps its numbers
_CALLS = 10  # three cheap ones and a pair of dearer ones, in a unit
_DEVICE = b"/dev/null"  # passed on as it is, where a str would be encoded each time
_PROGRAM = "/usr/bin/true"
_ADDR_NO_RANDOMIZE = 0x0040000  # linux/personality.h
_ASK = 0xFFFFFFFF


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
        os.getuid()
        os.getuid()
        os.getuid()
        os.close(os.open(_DEVICE, os.O_RDONLY))


@contextlib.contextmanager
def _processes() -> Iterator[Ready]:
    """Children are all laid out alike: how many pages a layout touches differs by 3 %."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = libc.personality(_ASK)
    if before < 0 or libc.personality(before | _ADDR_NO_RANDOMIZE) < 0:
        raise refusal("cannot lay out processes alike: personality", ctypes.get_errno())
    try:
        yield Ready(_one_process)
    finally:
        libc.personality(before)


def _one_process() -> None:
    pid = os.posix_spawn(_PROGRAM, [_PROGRAM], {})
    if os.waitpid(pid, 0)[1] != 0:
        raise WorkloadError(f"{_PROGRAM} failed")


PROCESSOR = BackgroundLoad(1000, _processor)
SYSTEM_CALLS = BackgroundLoad(3000, _system_calls)
PROCESSES = BackgroundLoad(200, _processes)
