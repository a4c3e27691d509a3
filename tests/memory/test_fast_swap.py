"""What compressed swap may hold by default."""

from __future__ import annotations

import os

import pytest

from hyperbox.memory import fast_swap
from hyperbox.memory.fast_swap import usual_zram_size

GIBIBYTE = 1 << 30


@pytest.mark.parametrize(
    ("memory_kib", "size"),
    [(2 << 20, 2 * GIBIBYTE), (8 << 20, 8 * GIBIBYTE), (64 << 20, 8 * GIBIBYTE)],
)
def test_zram_is_as_large_as_memory_up_to_a_limit(
    memory_kib: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"MemFree: 17 kB\nMemTotal:       {memory_kib} kB\nSwapTotal: 0 kB"
    monkeypatch.setattr(fast_swap, "read_knob", lambda _path: text)
    assert usual_zram_size() == size


def test_this_machine_s_memory_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # sysinfo(2) has the same number; the usual limit would hide any other of a large machine.
    monkeypatch.setattr(fast_swap, "_MOST_ZRAM", 1 << 62)
    assert usual_zram_size() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
