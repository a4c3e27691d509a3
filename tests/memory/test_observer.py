"""Readings of the real kernel, and a tuner put together on this machine without changing it."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError, WorkloadError
from hyperbox.linux.pressure import PROC_PRESSURE, PressureMissing
from hyperbox.memory.decisions import Rules
from hyperbox.memory.observer import Observer
from hyperbox.memory.readings import SECOND_NS, between
from hyperbox.memory.tuner import TunerStatus
from hyperbox.memory.tuning import TunerOptions, Tuning

has_pressure = pytest.mark.skipif(
    not (PROC_PRESSURE / "memory").exists(), reason="this kernel has no pressure files"
)


@has_pressure
def test_readings_can_be_compared_and_never_fall() -> None:
    observer = Observer()
    try:
        readings = [observer.reading() for _ in range(20)]
    finally:
        observer.close()
    for before, after in itertools.pairwise(readings):
        interval = between(before, after)
        assert interval is not None
        assert 0 <= interval.memory_full <= interval.memory_some + 0.01 <= 100.01
        assert after.swap_ins >= before.swap_ins
        assert abs(after.suspended_ns - before.suspended_ns) < SECOND_NS


def planted(directory: Path, total_us: int) -> None:
    line = f"avg10=0.00 avg60=0.00 avg300=0.00 total={total_us}"
    for name in ("cpu", "memory", "io"):
        (directory / f"{name}.pressure").write_text(f"some {line}\nfull {line}\n")


def test_cgroup_is_judged_instead_of_the_machine(tmp_path: Path) -> None:
    planted(tmp_path, 4711)
    (tmp_path / "memory.stat").write_text(
        "workingset_refault_anon 3\nworkingset_refault_file 4\nfile 100\n"
    )
    observer = Observer(tmp_path, also=[tmp_path, tmp_path / "gone"])
    try:
        reading = observer.reading()
    finally:
        observer.close()
    assert (reading.memory_some_us, reading.io_some_us) == (4711, 4711)
    assert (reading.groups[str(tmp_path)].refaults, reading.groups[str(tmp_path)].stall_us) == (
        7,
        4711,
    )
    assert str(tmp_path / "gone") not in reading.groups


def test_no_pressure_is_said_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERBOX_STATE", str(tmp_path / "state"))
    pressureless = tmp_path / "group"
    pressureless.mkdir()
    (pressureless / "cgroup.controllers").write_text("")
    with pytest.raises(PressureMissing, match="absent"):
        Tuning(TunerOptions(group=pressureless))
    with pytest.raises(ConfigError, match="is not a cgroup"):
        Tuning(TunerOptions(group=tmp_path))
    assert not (tmp_path / "state").exists()


def test_cgroup_that_goes_away_ends_the_tuner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERBOX_STATE", str(tmp_path / "state"))
    planted(tmp_path, 1)
    options = TunerOptions(group=tmp_path, fast_swap="none", rules=Rules(interval_s=1))
    with Tuning(options) as tuning:
        tuning.step()
        for name in ("cpu", "memory", "io"):
            (tmp_path / f"{name}.pressure").write_text("")
        with pytest.raises(WorkloadError, match="no line of pressure"):
            tuning.step()
    held = (tmp_path / "state" / "tuner.lock").read_text()
    assert held == f"{os.getpid()}\n"


def test_status_before_the_first_reading_is_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERBOX_STATE", str(tmp_path / "state"))
    planted(tmp_path, 1)
    with Tuning(TunerOptions(group=tmp_path, dry_run=True)) as tuning:
        assert isinstance(tuning.status(), TunerStatus)
        report = tuning.report()
    assert (report["state"], report["score"], report["dry_run"]) == ("normal", None, True)
    assert not (tmp_path / "state" / "tuner.lock").exists()


@pytest.mark.parametrize("interval", [0.5, 301])
def test_interval_that_cannot_be_tuned_by(interval: float) -> None:
    with pytest.raises(ConfigError, match="cannot be tuned by"):
        TunerOptions(rules=Rules(interval_s=interval))
