"""What cells cost is kept, and a file that is none of it is as good as absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.harness.model import Arm, Cell, Experiment, Lane, Metric, Perturbation
from hyperbox.harness.runs.attempt import Attempt, BlockRecord, State
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


def _attempt(blocks: int, state: State = State.MEASURED) -> Attempt:
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


@pytest.mark.parametrize("state", [State.FAILED, State.SKIPPED])
def test_what_measured_nothing_has_no_cost(state: State) -> None:
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


_SOUND = {"format": 1, "blocks": 8, "settled": False, "seconds": 1.0, "cpu_seconds": 2}
_SOUND |= {"guest_seconds": 3.0, "ready_s": 4.0}


@given(
    st.binary(max_size=60)
    | st.builds(
        lambda change: json.dumps({**_SOUND, **change}).encode(),
        st.dictionaries(
            st.sampled_from([*_SOUND, "more"]),
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
            max_size=3,
        ),
    )
)
def test_a_file_is_a_cost_or_nothing(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    directory = tmp_path_factory.mktemp("costs")
    (directory / f"{_CELL.key}.json").write_bytes(data)
    for cost in CostBook(directory).of([_CELL]).values():
        assert cost.blocks > 0
        assert cost.seconds + cost.cpu_seconds + cost.guest_seconds + cost.ready_s >= 0
        assert cost.seconds < float("inf")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"blocks": 0},
        {"blocks": True},
        {"settled": 1},
        {"seconds": -1},
        {"seconds": "1"},
        {"cpu_seconds": float("nan")},
        {"ready_s": 10**400},
        {"colour": 1},
    ],
)
def test_one_wrong_number_spoils_it(tmp_path: Path, change: dict[str, object]) -> None:
    file = tmp_path / f"{_CELL.key}.json"
    file.write_text(json.dumps(_SOUND))
    assert CostBook(tmp_path).of([_CELL]) == {_CELL: Cost(8, False, 1.0, 2, 3.0, 4.0)}
    file.write_text(json.dumps({**_SOUND, **change}))
    assert CostBook(tmp_path).of([_CELL]) == {}


def test_damage_of_other_kinds_is_nothing(tmp_path: Path) -> None:
    file = tmp_path / f"{_CELL.key}.json"
    for text in ("", "[]", "null", "[" * 100_000, '{"format": 1}'):
        file.write_text(text)
        assert CostBook(tmp_path).of([_CELL]) == {}
    file.unlink()
    file.mkdir()
    assert CostBook(tmp_path).of([_CELL]) == {}
