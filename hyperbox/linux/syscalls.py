"""System calls by number and name.

The tables are those of Linux 7.3, which keep every number of earlier kernels. They are the
project's own so that an answer does not depend on the libseccomp of the machine: 2.5.4 (Debian 12)
knows nothing after ``set_mempolicy_home_node`` (Linux 5.17).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib import resources

__all__ = ["X32_BIT", "Abi", "name_of", "numbers"]

X32_BIT = 0x40000000
"""Set in the numbers of x32 calls (``__X32_SYSCALL_BIT`` of <asm/unistd.h>)."""


class Abi(StrEnum):
    """A table of system calls that an x86-64 kernel serves."""

    X86_64 = "x86_64"
    I386 = "i386"
    """32-bit entry: ``int 0x80``, sysenter, 32-bit programs."""


@cache
def numbers(abi: Abi) -> Mapping[str, int]:
    """Return the number of each system call of a table, by name."""
    text = resources.files("hyperbox.linux").joinpath(f"syscalls_{abi}.txt").read_text()
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {name: int(number) for number, name in lines}


@cache
def _names(abi: Abi) -> Mapping[int, str]:
    return {number: name for name, number in numbers(abi).items()}


def name_of(number: int, abi: Abi = Abi.X86_64) -> str:
    """Return the name of a system call; ``syscall_NUMBER`` if the table does not have it."""
    return _names(abi).get(number, f"syscall_{number}")
