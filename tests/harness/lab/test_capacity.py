"""No more guests than memory carries; what is promised is not promised twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyperbox.errors import HarnessError
from hyperbox.harness.lab.capacity import MemoryReservation, cells_at_once, free_memory
from hyperbox.harness.lab.nameless import in_memory

_GIB = 1 << 30
_MIB = 1 << 20


@pytest.mark.parametrize(
    ("wanted", "memory", "expected"),
    [(2, 100 * _GIB, 2), (64, 7 * _GIB, 6), (8, 0, 1)],
)
def test_cells_at_once(wanted: int, memory: int, expected: int) -> None:
    assert cells_at_once(wanted, 768 * _MIB, memory) == expected


def test_free_memory_is_the_kernels_number(tmp_path: Path) -> None:
    shown = tmp_path / "meminfo"
    shown.write_text("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable:     42 kB\n")
    assert free_memory(shown) == 42 << 10
    assert 0 < free_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    shown.write_text("MemTotal: 100 kB\n")
    with pytest.raises(HarnessError, match="has no MemAvailable"):
        free_memory(shown)


def test_promised_memory_is_not_promised_twice() -> None:
    free = 10 * _MIB
    with in_memory("first") as first, in_memory("second") as second:

        def left() -> int:
            return free - sum(os.fstat(file.fileno()).st_blocks * 512 for file in (first, second))

        memory = MemoryReservation(left)
        with memory.growing(first, 6 * _MIB):
            first.write(bytes(2 * _MIB))
            with (
                pytest.raises(HarnessError, match="4 MiB of memory are free, a guest needs 5 MiB"),
                memory.growing(second, 5 * _MIB),
            ):
                pytest.fail("there is no memory")
            with memory.growing(second, 4 * _MIB):
                second.write(bytes(4 * _MIB))
        with memory.growing(second, 4 * _MIB):
            pass
