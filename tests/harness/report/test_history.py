"""Change points: found where planted, rarely where not, and told in the report."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.differences import (
    config_differences,
    config_table,
    environment_differences,
    notable,
)
from hyperbox.harness.report.history import change_points, history, history_plot
from hyperbox.harness.report.page import html_page


def runs(levels: list[float], seed: int, blocks: int = 12) -> list[list[float]]:
    dice = random.Random(seed)
    return [[dice.gauss(level, 1.0) for _ in range(blocks)] for level in levels]


@pytest.mark.parametrize("at", [1, 4, 7])
def test_planted_change_is_found_where_it_is(at: int) -> None:
    levels = [0.0] * at + [2.5] * (8 - at)
    for seed in range(20):
        assert [index for index, _ in change_points(runs(levels, seed))] == [at]


def test_two_changes_are_found() -> None:
    found = change_points(runs([0, 0, 0, 4, 4, 4, 0, 0], seed=1, blocks=20))
    assert [index for index, _ in found] == [3, 6]


def test_false_alarms_keep_their_bound() -> None:
    alarms = sum(bool(change_points(runs([0.0] * 6, seed))) for seed in range(300))
    assert alarms <= 9  # 1 % promised; more than 9 of 300 has a chance of 0.1 %


def test_identical_runs_have_no_change() -> None:
    assert change_points([[1.0, 2.0, 3.0]] * 6) == ()
    assert change_points([[0.0] * 8] * 6) == ()
    assert change_points([[1.0]]) == ()


def older(run: RunData, number: int, factor: float) -> RunData:
    """An earlier run whose tuned arm had that many times the pressure."""
    cells = tuple(
        replace(
            c,
            samples=tuple(
                replace(s, value=s.value * factor) if (s.arm, s.metric) == ("on", "some_us") else s
                for s in c.samples
            ),
        )
        for c in run.cells
    )
    created = f"2029-12-0{number}T00:00:00Z"
    return replace(run, run_id=f"r{number}", created=created, cells=cells)


def test_history_tells_the_run_that_changed(run: RunData) -> None:
    earlier = [older(run, 3, 1.0), older(run, 1, 1.3), older(run, 2, 1.3)]
    series = history(run, earlier)
    found = {(s.gate.id, s.column.kernel): s for s in series}
    changed = found["psi.pressure_reduction", "6.12"]
    assert [p.run_id for p in changed.points] == ["r1", "r2", "r3", run.run_id]
    assert [c.index for c in changed.changes] == [2]
    assert changed.changes[0].text.startswith("-26")  # 0.89 x 1.3 to 0.89, in points
    assert found["psi.swap_reduction", "6.12"].changes == ()
    assert "▼" in history_plot(changed)
    page = html_page(run, series[-3:])
    assert "Earlier runs" in page


def test_history_leaves_out_other_questions(run: RunData) -> None:
    other = replace(older(run, 1, 1.0), gates=tuple(replace(g, arm="off") for g in run.gates))
    assert history(run, [other]) == ()
    assert history(run, []) == ()


def test_environment_differences_name_only_what_differs(run: RunData) -> None:
    def machine(kernel: str) -> dict[str, object]:
        cpus = 2 if kernel == "7.3" else 1
        return {"cpus": cpus, "qemu": {"version": "7.2"}, "kernel": {"label": kernel}}

    cells = tuple(replace(c, environment=machine(c.cell.kernel)) for c in run.cells)
    found = environment_differences(replace(run, cells=cells), ["5.10", "6.12", "7.3"])
    assert [(one.name, one.values) for one in found] == [("cpus", ("1", "1", "2"))]


def test_several_machines_for_one_kernel_are_a_difference(run: RunData) -> None:
    cells = tuple(replace(c, environment={"host": str(n)}) for n, c in enumerate(run.cells[:2]))
    found = environment_differences(replace(run, cells=cells), ["5.10"])
    assert found[0].values == ("0; 1",)


def test_config_differences(run: RunData) -> None:
    configs = {
        "5.10": {"CONFIG_HZ": "250", "CONFIG_PSI": "y", "CONFIG_X": "m"},
        "7.3": {"CONFIG_HZ": "1000", "CONFIG_PSI": "y"},
    }
    told = replace(run, kernel_configs=configs)
    kernels = ["5.10", "6.12", "7.3"]
    found = config_differences(told, kernels)
    assert [one.name for one in found] == ["CONFIG_HZ", "CONFIG_X"]
    assert found[1].values == ("m", "not on record", "not set")
    assert [one.name for one in notable(found)] == ["CONFIG_HZ"]
    assert config_table(kernels, found).splitlines()[1] == "CONFIG_HZ,250,not on record,1000"
    assert config_differences(replace(run, kernel_configs={"5.10": {"A": "y"}}), kernels) == ()
