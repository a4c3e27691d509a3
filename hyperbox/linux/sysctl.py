"""Kernel parameters below ``/proc/sys``; follows ``Documentation/admin-guide/sysctl/``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing

__all__ = ["changed", "read", "write"]

_ROOT = Path("/proc/sys")


def read(name: str) -> str:
    """Give a parameter such as ``vm.swappiness`` as text."""
    try:
        return _path(name).read_text().strip()
    except FileNotFoundError as error:
        raise KernelFeatureMissing(f"this kernel has no parameter {name}") from error


def write(name: str, value: str) -> None:
    """Set a parameter.

    Raises
    ------
    KernelFeatureMissing
        If it does not exist, is read-only, or refuses the value.
    """
    try:
        _path(name).write_text(value)
    except OSError as error:
        raise KernelFeatureMissing(f"cannot set {name} to {value}: {error.strerror}") from error


@contextlib.contextmanager
def changed(name: str, value: str) -> Iterator[None]:
    """Set a parameter for the block; put back the original where ours is still there."""
    original = read(name)
    write(name, value)
    try:
        yield
    finally:
        if read(name) == value:
            write(name, original)


def _path(name: str) -> Path:
    return _ROOT / name.replace(".", "/")
