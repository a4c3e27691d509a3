"""Steal time is read where the kernel has it."""

from __future__ import annotations

from hyperbox.harness.lab.host_load import host_load, steal_seconds


def test_steal_is_the_eighth_time_of_all_processors() -> None:
    assert steal_seconds("cpu  1 2 3 4 5 6 7 250 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n", 100) == 2.5


def test_a_kernel_without_steal_time_says_nothing() -> None:
    assert steal_seconds("cpu  1 2 3 4\n", 100) is None
    assert steal_seconds("", 100) is None


def test_this_machine_has_a_load() -> None:
    assert len(host_load()["load"]) == 3  # type: ignore[arg-type]
