"""A little of everything, timed: the same numbers from every clone, or time is not exact.

Runs in a guest: ``python3 -m hyperbox.harness.lab.repeatability_probe`` prints one JSON
object, phase to nanoseconds, with what the kernel's random generator gives (which decides
address layouts) and an address.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
import time
from collections.abc import Callable

__all__ = ["main"]


def main() -> int:
    """Run every phase; return the exit status."""
    found: dict[str, int | str] = {"began_ns": time.monotonic_ns()}
    for phase in (_processor, _system_calls, _processes, _memory, _files, _sleep):
        found[phase.__name__.strip("_")] = _timed(phase)
    found["random"] = os.urandom(8).hex()
    found["address"] = hex(id(found))
    print(json.dumps(found))
    return 0


def _timed(phase: Callable[[], object]) -> int:
    before = time.monotonic_ns()
    phase()
    return time.monotonic_ns() - before


def _processor() -> int:
    total = 0
    for number in range(20_000):
        total += number * number
    return total


def _system_calls() -> None:
    for _ in range(2_000):
        os.getppid()


def _processes() -> None:
    for _ in range(3):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)


def _memory() -> None:
    with mmap.mmap(-1, 4 << 20) as block:
        for offset in range(0, len(block), mmap.PAGESIZE):
            block[offset] = 1


def _files() -> None:
    with tempfile.TemporaryFile() as stream:
        stream.write(bytes(1 << 20))
        stream.seek(0)
        stream.read()


def _sleep() -> None:
    time.sleep(0.01)


if __name__ == "__main__":
    raise SystemExit(main())
