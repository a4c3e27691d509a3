"""What a comparison must not pass over: what broke, what is missing, what else differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from hyperbox.errors import ConfigError
from hyperbox.harness.model import Lane, MachineRequest
from hyperbox.harness.report.comparison import compare
from hyperbox.harness.report.comparison_data import SideFinding
from hyperbox.harness.report.data import CellData, RunData

HERE: Mapping[str, Any] = {
    "hyperbox": {"hyperbox": "0.1.0", "commit": "d6c49ed"},
    "images": {"project": "a" * 64, "root": "b" * 64},
    "qemu": {"version": "7.2.22", "sha256": "c" * 64},
    "host": {"cpu": "EPYC", "kernel": "6.18"},
    "commandline": "console=ttyS0 psi=1",
    "kernel": {"label": "6.12", "version": "6.12.48-1", "sha256": "d" * 64, "build": "e" * 64},
    "repeatability": {"exact": True},
}


def measured(run: RunData, environment: Mapping[str, Any], run_id: str = "later") -> RunData:
    cells = tuple(replace(cell, environment=environment) for cell in run.cells)
    return replace(run, run_id=run_id, cells=cells)


def remarks(run: RunData, environment: Mapping[str, Any]) -> str:
    return "\n".join(compare(measured(run, HERE, "one"), measured(run, environment)).remarks)


def test_nothing_is_told_where_nothing_differs(run: RunData) -> None:
    shown = remarks(run, {**HERE, "host": {"cpu": "Xeon"}, "hyperbox": {"commit": "fffffff"}})
    assert shown == "exact lane: compares work in instructions, not hardware speed"
    assert remarks(run, {}) == shown, "what is not on record is not shown to differ"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"images": {"project": "0" * 64}, "hyperbox": {"commit": "79e7385"}},
            "the programs that load and measure are not the same (hyperbox d6c49ed against "
            "79e7385): a difference may be theirs",
        ),
        (
            {"images": {}, "hyperbox": {"hyperbox": "0.2.0"}},
            "not the same (hyperbox d6c49ed against 0.2.0)",
        ),
        ({"images": {"root": "0" * 64}}, "not the same on both sides: the guests' images\n"),
        ({"qemu": {"version": "11.1"}}, "not the same on both sides: QEMU: 7.2.22 against 11.1"),
        ({"commandline": "psi=0"}, "the kernels' command lines: console=ttyS0 psi=1 against psi=0"),
        (
            {"kernel": {"version": "6.12.57-1", "sha256": "0" * 64}},
            "kernel 5.10: 6.12.48-1 against 6.12.57-1",
        ),
        (
            {"kernel": {"version": "", "sha256": "0" * 64}},
            f"kernel 5.10: build {'d' * 12} against build {'0' * 12}",
        ),
        (
            {"kernel": {**HERE["kernel"], "build": "0" * 64}},
            f"kernel 5.10: build {'e' * 12} against build {'0' * 12}",
        ),
        (
            {"repeatability": {"exact": False}},
            "later failed the exact lane's self-test in psi.readings on 5.10, 6.12, 7.3; ",
        ),
    ],
)
def test_what_else_differs_is_told_first(
    run: RunData, change: Mapping[str, Any], text: str
) -> None:
    shown = remarks(run, {**HERE, **change})
    assert text in shown
    assert shown.endswith("not hardware speed"), "what is always so comes last"


def test_programs_of_unknown_images_are_told_by_version(run: RunData) -> None:
    one, two = ({"hyperbox": {"hyperbox": version}} for version in ("0.1.0", "0.2.0"))
    shown = compare(measured(run, one, "one"), measured(run, two)).remarks
    assert "hyperbox 0.1.0 against 0.2.0" in shown[0]


def test_host_time_depends_on_the_host(run: RunData) -> None:
    cells = tuple(replace(c, cell=replace(c.cell, lane=Lane.KVM)) for c in run.cells)
    there = replace(run, cells=cells)
    assert "the processor: EPYC against Xeon" in remarks(
        there, {**HERE, "host": {"cpu": "Xeon", "kernel": "6.18"}}
    )


def test_a_failed_self_test_makes_it_host_time(run: RunData) -> None:
    """Then its pairs are tested by ranks and small differences count, as gates do."""
    inexact = {**HERE, "repeatability": {"exact": False}}
    cells = tuple(
        replace(c, samples=tuple(replace(s, value=s.value * 1.0008) for s in c.samples))
        for c in measured(run, inexact).cells
    )
    found = compare(measured(run, HERE, "one"), replace(run, run_id="later", cells=cells))
    some = [row for row in found.rows if row.metric.id == "some_us"]
    assert {row.finding for row in some} == {SideFinding.FIRST_BETTER}


def broken(run: RunData, kernel: str, **attempt: object) -> RunData:
    def without(cell: CellData) -> CellData:
        if (cell.cell.kernel, cell.experiment.id) != (kernel, "psi.swap_storm"):
            return cell
        return replace(cell, samples=(), attempts=(attempt,) if attempt else ())

    return replace(run, cells=tuple(map(without, run.cells)))


@pytest.mark.parametrize(
    ("attempt", "why"),
    [
        ({"status": "failed", "reason": "the kernel panicked"}, "failed: the kernel panicked"),
        ({"status": "skipped", "reason": "no PSI"}, "skipped: no PSI"),
        ({"status": "measured"}, "damaged"),
        ({}, "not measured"),
    ],
)
def test_what_broke_on_one_side_is_told(
    run: RunData, attempt: Mapping[str, object], why: str
) -> None:
    """A kernel that dies under the load loses no row, so a sentence has to say it."""
    found = compare(broken(run, "7.3", **attempt), kernels=["6.12", "7.3"])
    assert {row.experiment for row in found.rows} == {"psi.readings"}
    assert f"7.3 has no numbers of psi.swap_storm on 7.3: {why}" in found.remarks


def test_nothing_in_common_says_what_is_missing(run: RunData) -> None:
    storm = replace(run, cells=tuple(c for c in run.cells if c.experiment.id == "psi.swap_storm"))
    with pytest.raises(ConfigError, match=r"7\.3 has no numbers of psi\.swap_storm on 7\.3: not m"):
        compare(broken(storm, "7.3"), kernels=["6.12", "7.3"])


def test_what_one_side_alone_planned_or_measured_is_told(run: RunData) -> None:
    less = tuple(c for c in run.cells if c.cell.key != "5.10--psi.readings--exact")
    cells = tuple(
        replace(c, samples=tuple(s for s in c.samples if (s.metric, s.arm) != ("pswpout", "on")))
        for c in less
    )
    shown = compare(run, replace(run, run_id="later", cells=cells)).remarks
    assert f"only {run.run_id} planned psi.readings on 5.10" in shown
    assert f"only {run.run_id} measured pswpout (on) of psi.swap_storm" in shown


def test_another_command_line_is_another_experiment(run: RunData) -> None:
    other = MachineRequest(commandline="psi=0")
    cells = tuple(replace(c, experiment=replace(c.experiment, machine=other)) for c in run.cells)
    with pytest.raises(ConfigError, match="is not the same experiment on both sides"):
        compare(run, replace(run, run_id="other", cells=cells))
