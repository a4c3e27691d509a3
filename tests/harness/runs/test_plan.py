"""Plans follow from the seed alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ConfigError
from hyperbox.harness.model import (
    Arm,
    Cell,
    Experiment,
    Gate,
    Lane,
    MachineRequest,
    Metric,
    Rule,
    Suite,
)
from hyperbox.harness.runs.plan import blocks_of, make_plan, select


def _experiment(name: str, blocks: int = 8) -> Experiment:
    return Experiment(
        id=name,
        suite=name.partition(".")[0],
        title="Title",
        arms=(Arm("off", "untuned"), Arm("on", "tuned")),
        metrics=(Metric("time", "Time", "us"),),
        program=("true", "{arm}"),
        blocks=blocks,
    )


def _gate(name: str, experiment: str) -> Gate:
    return Gate(name, "Title", "target", experiment, "time", Rule.NON_INFERIOR, 0.02, "on", "off")


_SUITES = (
    Suite(
        "a",
        "A",
        (_experiment("a.one"), _experiment("a.two")),
        (_gate("a.g1", "a.one"), _gate("a.g2", "a.two"), _gate("a.g3", "a.two")),
    ),
    Suite("b", "B", (_experiment("b.one"),), (_gate("b.g1", "b.one"),)),
)


def test_no_name_selects_everything() -> None:
    experiments, gates = select(_SUITES, ())
    assert [e.id for e in experiments] == ["a.one", "a.two", "b.one"]
    assert [g.id for g in gates] == ["a.g1", "a.g2", "a.g3", "b.g1"]


def test_what_is_not_run_by_default_is_run_when_named() -> None:
    costly = replace(_SUITES[0].experiments[1], default=False)
    suites = (replace(_SUITES[0], experiments=(_SUITES[0].experiments[0], costly)), _SUITES[1])
    assert [g.id for g in select(suites, ())[1]] == ["a.g1", "b.g1"]
    assert [e.id for e in select(suites, ())[0]] == ["a.one", "b.one"]
    assert [g.id for g in select(suites, ["a"])[1]] == ["a.g1", "a.g2", "a.g3"]
    assert [e.id for e in select(suites, ["a.g3"])[0]] == ["a.two"]


def test_suites_and_gates_select_what_they_need() -> None:
    experiments, gates = select(_SUITES, ["b", "a.g3"])
    assert [e.id for e in experiments] == ["a.two", "b.one"]
    assert [g.id for g in gates] == ["a.g3", "b.g1"]


def test_unknown_names_get_near_matches() -> None:
    with pytest.raises(ConfigError, match=r"'a\.g4'") as caught:
        select(_SUITES, ["a.g4"])
    assert "a.g" in caught.value.hint


def test_cells_are_every_kernel_with_every_experiment() -> None:
    plan = make_plan(_SUITES, kernels=["5.10", "6.12"], lane=Lane.EXACT, seed=1)
    assert len(plan.cells()) == 6
    assert len({cell.key for cell in plan.cells()}) == 6
    assert plan.cells()[0].kernel != plan.cells()[1].kernel


def test_blocks_can_be_overridden_and_kernels_named_twice_count_once() -> None:
    plan = make_plan(_SUITES, kernels=["6.12", "6.12"], lane=Lane.EXACT, seed=1, blocks=3)
    assert plan.kernels == ("6.12",)
    assert {experiment.blocks for experiment in plan.experiments} == {3}


@given(seed=st.integers(0, 2**64), kernel=st.sampled_from(["5.10", "7.3"]))
def test_same_arguments_same_blocks(seed: int, kernel: str) -> None:
    cell = Cell(kernel, "a.one", Lane.EXACT)
    experiment = _experiment("a.one", 20)
    blocks = list(blocks_of(cell, experiment, seed))
    assert blocks == list(blocks_of(cell, experiment, seed))
    assert blocks[:5] == list(blocks_of(cell, _experiment("a.one", 5), seed))
    assert [block.number for block in blocks] == list(range(20))
    assert all(sorted(block.order) == ["off", "on"] for block in blocks)


def test_orders_are_balanced_and_starts_differ() -> None:
    cell = Cell("6.12", "a.one", Lane.EXACT)
    blocks = list(blocks_of(cell, _experiment("a.one", 2000), 1))
    counts = Counter(block.order for block in blocks)
    assert min(counts.values()) > 900
    assert len({block.start for block in blocks}) == 2000
    assert len({block.start.padding for block in blocks}) > 500


def test_seed_kernel_and_experiment_all_matter() -> None:
    def starts(kernel: str, experiment: str, seed: int) -> list[int]:
        cell = Cell(kernel, experiment, Lane.EXACT)
        return [block.start.seed for block in blocks_of(cell, _experiment(experiment), seed)]

    variants = [
        starts("6.12", "a.one", 1),
        starts("6.12", "a.one", 2),
        starts("5.10", "a.one", 1),
        starts("6.12", "a.two", 1),
    ]
    assert len({tuple(variant) for variant in variants}) == 4


def test_lanes_beside_are_measured_after_the_deciding_one() -> None:
    plan = make_plan(
        _SUITES,
        names=["a.g1"],
        kernels=["5.10", "7.3"],
        lane=Lane.EXACT,
        seed=1,
        beside=[Lane.FAST, Lane.EXACT, Lane.FAST],
    )
    assert plan.beside == (Lane.FAST,)
    assert [(cell.kernel, cell.lane) for cell in plan.cells()] == [
        ("5.10", Lane.EXACT),
        ("7.3", Lane.EXACT),
        ("5.10", Lane.FAST),
        ("7.3", Lane.FAST),
    ]
    # The lanes measure the same starts in the same order.
    exact, fast = plan.cells()[0], plan.cells()[2]
    experiment = plan.experiment("a.one")
    assert list(blocks_of(exact, experiment, 1)) == list(blocks_of(fast, experiment, 1))


@pytest.mark.parametrize("beside", [Lane.FAST, Lane.EXACT])
def test_two_processors_are_refused_in_the_exact_lane(beside: Lane) -> None:
    wide = replace(_experiment("c.wide"), machine=MachineRequest(processors=2))
    suites = (Suite("c", "C", (wide,), (_gate("c.g1", "c.wide"),)),)
    lanes = (Lane.FAST, Lane.EXACT) if beside is Lane.EXACT else (Lane.EXACT, Lane.FAST)
    with pytest.raises(ConfigError, match=r"c\.wide needs 2 processors.* exact lane has one") as no:
        make_plan(suites, kernels=["6.12"], lane=lanes[0], beside=lanes[1:], seed=1)
    assert "--lane fast" in no.value.hint
    assert make_plan(suites, kernels=["6.12"], lane=Lane.FAST, seed=1).experiments == (wide,)
