"""A dry run plans what the run would, and says what only that can find out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hyperbox.config import Settings
from hyperbox.errors import ConfigError
from hyperbox.harness.model import Cell, Lane
from hyperbox.harness.runs.costs import Cost, CostBook
from hyperbox.harness.runs.dry_run import dry_run

_SETTINGS = Settings(kernel=("6.12", "7.3"), jobs=2)
_NAMES = ["psi.accuracy", "psi.normal_pressure"]


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CostBook:
    """Return costs of three of the four cells; the cache has no kernel."""
    monkeypatch.setenv("HYPERBOX_CACHE", os.fspath(tmp_path))
    monkeypatch.setattr("hyperbox.harness.runs.dry_run._KVM", tmp_path / "kvm")
    monkeypatch.setattr(
        "hyperbox.harness.runs.dry_run.jobs_for", lambda *_: (2, "")
    )  # whatever memory is free
    book = CostBook()
    for seconds, kernel, experiment in (
        (10.0, "6.12", "psi.accuracy"),
        (20.0, "7.3", "psi.accuracy"),
        (30.0, "7.3", "psi.normal_pressure"),
    ):
        cost = Cost(1, True, seconds, seconds - 1, 5.0, 5.0)
        book.keep(Cell(kernel, experiment, Lane.EXACT), cost)
    return book


def test_known_cells_are_summed_over_the_jobs(book: CostBook) -> None:
    found = dry_run(_SETTINGS, _NAMES)
    assert [(cell.experiment, cell.kernel) for cell in found.order] == [
        ("psi.normal_pressure", "6.12"),  # as on 7.3
        ("psi.normal_pressure", "7.3"),
        ("psi.accuracy", "7.3"),
        ("psi.accuracy", "6.12"),
    ]
    assert [found.expected[cell].seconds for cell in found.order] == [35.0, 35.0, 25.0, 15.0]
    assert str(found.total()) == "about 60 s"
    assert found.cpu_seconds() == 29.0 + 29.0 + 19.0 + 9.0
    assert found.remarks == (
        "kernel 6.12 is not in the cache: it will be fetched",
        "kernel 7.3 is not in the cache: it will be fetched",
    )
    assert dry_run(_SETTINGS, _NAMES).order == found.order


def test_a_second_lane_and_other_kernels_are_unknown(book: CostBook) -> None:
    settings = replace(_SETTINGS, kernel=("5.10",), beside="fast")
    found = dry_run(settings, _NAMES)
    assert found.total().unknown == 4  # no cost of the plan's own kernels
    assert [cell.lane for cell in found.order] == [Lane.EXACT] * 2 + [Lane.FAST] * 2


@pytest.mark.parametrize(
    ("lane", "device", "taken", "remark"),
    [
        ("auto", False, Lane.EXACT, ""),
        ("real", False, Lane.FAST, ""),
        ("auto", True, Lane.KVM, "lane auto: kvm if a kernel boots under"),
        ("kvm", True, Lane.KVM, "lane kvm: kvm if"),
        ("fast", True, Lane.FAST, ""),
    ],
)
def test_a_lane_that_takes_a_boot_to_find_is_told(
    book: CostBook, tmp_path: Path, lane: str, device: bool, taken: Lane, remark: str
) -> None:
    if device:
        (tmp_path / "kvm").touch()
    found = dry_run(replace(_SETTINGS, lane=lane), _NAMES)
    assert found.plan.lane is taken
    assert any(text.startswith(remark) for text in found.remarks if "cache" not in text) == bool(
        remark
    )


def test_what_the_run_would_refuse_is_refused(book: CostBook, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        dry_run(replace(_SETTINGS, lane="kvm"), _NAMES)
    with pytest.raises(ConfigError, match=r"no gate or suite is called 'psi\.acuracy'"):
        dry_run(_SETTINGS, ["psi.acuracy"])
    with pytest.raises(ConfigError, match="cannot read"):
        dry_run(replace(_SETTINGS, kernel=(os.fspath(tmp_path / "bzImage"),)), _NAMES)
    with pytest.raises(ConfigError, match="not a run directory"):
        dry_run(replace(_SETTINGS, resume=tmp_path), ())
    with pytest.raises(ConfigError, match="--target host only"):
        dry_run(replace(_SETTINGS, suites=tmp_path), ())
