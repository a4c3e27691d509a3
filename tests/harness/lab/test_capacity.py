"""No more guests than memory carries; room that is promised is not promised twice."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.errors import HarnessError
from hyperbox.harness.lab.capacity import (
    MemoryReservation,
    cells_at_once,
    free_memory,
    free_shared_memory,
)

_GIB = 1 << 30
_MIB = 1 << 20


@pytest.mark.parametrize(
    ("wanted", "memory", "shared", "expected"),
    [
        (2, 100 * _GIB, 100 * _GIB, 2),
        (64, 7 * _GIB, 100 * _GIB, 6),
        (64, 100 * _GIB, 4 * _GIB, 5),
        (8, 0, 0, 1),
    ],
)
def test_cells_at_once(wanted: int, memory: int, shared: int, expected: int) -> None:
    assert cells_at_once(wanted, 768 * _MIB, memory, shared) == expected


def test_free_memory_is_the_kernels_number(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable:     42 kB\n")
    assert free_memory(told) == 42 << 10
    assert 0 < free_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    told.write_text("MemTotal: 100 kB\n")
    with pytest.raises(HarnessError, match="has no MemAvailable"):
        free_memory(told)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a tmpfs of 10 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "none", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.root
def test_promised_room_is_not_promised_twice(small: Path) -> None:
    room, first, second = MemoryReservation(small), small / "first", small / "second"
    assert free_shared_memory(small) == 10 * _MIB
    with room.growing(first, 6 * _MIB):
        first.write_bytes(bytes(2 * _MIB))
        with (
            pytest.raises(HarnessError, match="has 4 MiB free, a guest needs 5 MiB"),
            room.growing(second, 5 * _MIB),
        ):
            pytest.fail("there is no room")
        with room.growing(second, 4 * _MIB):
            second.write_bytes(bytes(4 * _MIB))
    with room.growing(second, 4 * _MIB):
        pass
