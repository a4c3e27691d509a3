"""Change points: found where planted, rarely where not, and shown in the report."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from hyperbox.harness.report import page
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


def test_a_name_may_be_used_again(run: RunData) -> None:
    """Runs of one directory name, as a published one has release by release, are many runs."""
    again = [replace(older(run, number, 1.0), run_id=run.run_id) for number in (1, 2)]
    series = history(run, [*again, again[0], run])
    assert {len(one.points) for one in series} == {3}


def test_runs_of_one_day_are_told_apart_by_their_hour(run: RunData) -> None:
    early = replace(run, run_id="early", created="2030-01-01T00:00:00Z")
    late = replace(run, run_id="late", created="2030-01-01T17:05:00Z")
    figure = history_plot(history(late, [early])[0])
    assert "01-01 00:00" in figure
    assert "01-01 17:05" in figure
    assert "2030-01-01" in history_plot(history(run, [older(run, 1, 1.0)])[0])


def test_a_change_of_percentages_is_told_in_points(run: RunData) -> None:
    cells = tuple(
        replace(c, samples=tuple(replace(s, value=s.value + 10) for s in c.samples))
        for c in run.cells
    )
    before = replace(run, run_id="r1", created="2029-12-01T00:00:00Z", cells=cells)
    (level,) = (
        s
        for s in history(run, [before])
        if (s.gate.id, s.column.kernel) == ("psi.monitor_cpu", "6.12")
    )
    assert [change.text for change in level.changes] == ["-10 points"]
    assert level.axis == "CPU of the monitor (← better)"


def test_a_long_history_shows_its_changes_first(
    run: RunData, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = history(run, [older(run, 1, 1.3), older(run, 2, 1.0)])
    changed = [f"<code>{s.gate.id}</code> on {s.column.label}" for s in series if s.changes]
    assert len(changed) == 3
    assert not series[0].changes
    monkeypatch.setattr(page, "_MOST_SERIES", 4)
    text = html_page(run, series)
    section = text[text.index('<section id="history">') :]
    shown = re.findall(r"<figcaption>(<code>[^<]+</code> on [^ ]+)", section)
    assert shown[:3] == changed
    assert len(shown) == 4
    assert "3 of 15 series have change points, shown first." in section
    assert "Shown are 4." in section


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
    assert found[0].values == ("0 … 1",)
    named = tuple(replace(c, environment={"host": f"h{n}"}) for n, c in enumerate(run.cells[:2]))
    assert environment_differences(replace(run, cells=named), ["5.10"])[0].values == ("h0; h1",)


def test_changing_facts_of_many_cells_stay_readable(run: RunData) -> None:
    """Loads of five cells are shown by their range, with digits that somebody may read."""
    loads = ([3.64990234375, 2.5], [0.0123, 2.5], [1.0, 10.0])
    cells = tuple(
        replace(
            run.cells[0],
            environment={"load": load, "repeatability": {"probe": {"files": load[0]}}},
        )
        for load in loads
    )
    found = environment_differences(replace(run, cells=cells), ["5.10"])
    assert [(one.name, one.values) for one in found] == [("load", ("0.0123 … 3.65, 2.5 … 10",))]


def test_config_differences(run: RunData) -> None:
    configs = {
        "5.10": {"CONFIG_HZ": "250", "CONFIG_PSI": "y", "CONFIG_X": "m"},
        "7.3": {"CONFIG_HZ": "1000", "CONFIG_PSI": "y"},
    }
    reported = replace(run, kernel_configs=configs)
    kernels = ["5.10", "6.12", "7.3"]
    found = config_differences(reported, kernels)
    assert [one.name for one in found] == ["CONFIG_HZ", "CONFIG_X"]
    assert found[1].values == ("m", "not on record", "not set")
    assert [one.name for one in notable(found)] == ["CONFIG_HZ"]
    assert config_table(kernels, found).splitlines()[1] == "CONFIG_HZ,250,not on record,1000"
    assert config_differences(replace(run, kernel_configs={"5.10": {"A": "y"}}), kernels) == ()
