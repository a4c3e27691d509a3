"""What cells cost is kept, and a file that is none of it is as good as absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperbox.files import write_sealed
from hyperbox.harness.model import Arm, Cell, Experiment, Lane, Metric, Perturbation
from hyperbox.harness.runs.attempt import Attempt, AttemptState, BlockRecord
from hyperbox.harness.runs.costs import Cost, CostBook, cost_of

_CELL = Cell("6.12", "demo.load", Lane.EXACT)
_COST = Cost(8, False, 20.5, 19.0, 12.25, 30.0)


def _experiment(blocks: int) -> Experiment:
    return Experiment(
        id="demo.load",
        suite="demo",
        title="Demo",
        arms=(Arm("off", "off"), Arm("on", "on")),
        metrics=(Metric("time", "Time", "us"),),
        program=("true", "{arm}"),
        blocks=blocks,
    )


def _attempt(blocks: int, state: AttemptState = AttemptState.MEASURED) -> Attempt:
    records = tuple(
        BlockRecord(
            number,
            ("off", "on"),
            Perturbation(1),
            {"off": 2.0, "on": 4.0},
            {},
            {"off": 1.0, "on": 1.5},
            {"off": 3.0, "on": 5.0},
        )
        for number in range(blocks)
    )
    return Attempt(state, started=100.0, ended=100.0 + 6.0 * blocks + 7.5, blocks=records)


def test_a_cost_is_an_average_block_and_the_rest() -> None:
    assert cost_of(_attempt(4), _experiment(4)) == Cost(4, False, 6.0, 8.0, 2.5, 7.5)
    assert cost_of(_attempt(2), _experiment(4)) == Cost(2, True, 6.0, 8.0, 2.5, 7.5)


@pytest.mark.parametrize("state", [AttemptState.FAILED, AttemptState.SKIPPED])
def test_what_measured_nothing_has_no_cost(state: AttemptState) -> None:
    assert cost_of(_attempt(2, state), _experiment(4)) is None
    assert cost_of(_attempt(0), _experiment(4)) is None


def test_the_newest_cost_is_given_back(tmp_path: Path) -> None:
    book, other = CostBook(tmp_path / "costs"), Cell("7.3", "demo.load", Lane.EXACT)
    assert book.of([_CELL, other]) == {}
    book.keep(_CELL, Cost(1, True, 1.0, 1.0, 1.0, 1.0))
    book.keep(_CELL, _COST)
    book.keep(_CELL, None)
    assert CostBook(tmp_path / "costs").of([_CELL, other]) == {_CELL: _COST}
    assert [path.name for path in (tmp_path / "costs").iterdir()] == [f"{_CELL.key}.json"]


def test_where_nothing_can_be_written_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    book = CostBook(tmp_path / "file" / "costs")
    book.keep(_CELL, _COST)
    assert book.of([_CELL]) == {}


@pytest.mark.parametrize("damage", ["cut", "flip", "none", "format", "deep"])
def test_a_damaged_cost_is_nothing_and_replaced(tmp_path: Path, damage: str) -> None:
    book, file = CostBook(tmp_path), tmp_path / f"{_CELL.key}.json"
    book.keep(_CELL, _COST)
    whole = file.read_bytes()
    assert whole.count(b"20.5") == 1
    changed = {
        "cut": whole[: len(whole) // 2],
        "flip": whole.replace(b"20.5", b"30.5"),
        "none": b"null",
        "format": b"",
        "deep": b"[" * 100_000,
    }
    file.write_bytes(changed[damage])
    if damage == "format":
        write_sealed(file, {"format": 1, "cost": 3})
    assert book.of([_CELL]) == {}
    book.keep(_CELL, _COST)
    assert book.of([_CELL]) == {_CELL: _COST}
