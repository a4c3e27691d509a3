"""Measuring a run again: what counts as the same, and what makes comparing void."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.harness.lab import snapshot_cache
from hyperbox.harness.model import Arm, Cell, Experiment, Gate, Lane, Metric, Rule, Sample
from hyperbox.harness.runs.attempt import Attempt, AttemptState, BlockRecord
from hyperbox.harness.runs.plan import Plan, blocks_of
from hyperbox.harness.runs.record import Record
from hyperbox.harness.runs.reproduction import Finding, exact_cells, judge
from hyperbox.harness.runs.store import RunStore

_EXPERIMENT = Experiment(
    id="demo.work",
    suite="demo",
    title="Demo",
    arms=(Arm("one", "one"),),
    metrics=(Metric("time", "Time", "us"),),
    program=("true",),
)
_GATE = Gate("demo.time", "T", "t", "demo.work", "time", Rule.AT_MOST, 9.0, "one")
_CELL = Cell("6.12", "demo.work", Lane.EXACT)
_SAMPLES = tuple(Sample(block, 0, "one", "time", block + 0.1) for block in range(3))
_MADE_OF = {
    "qemu": {"sha256": "q"},
    "kernel": {"sha256": "k"},
    "images": {"root": "r"},
    "guest_packages": {"libc6": "2.41-12", "python3": "3.13"},
}


def _attempt(**changes: object) -> Attempt:
    block = next(blocks_of(_CELL, _EXPERIMENT, 1))
    records = tuple(
        BlockRecord(number, block.order, block.start, {"one": 0.1}, {"one": {}})
        for number in range(3)
    )
    known = Attempt(
        AttemptState.MEASURED, 1.7e9, 1.7e9 + 1, _SAMPLES, records, environment=dict(_MADE_OF)
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def _store(directory: Path, lane: Lane = Lane.EXACT) -> tuple[RunStore, Plan, Record]:
    plan = Plan(("6.12",), lane, (_EXPERIMENT,), (_GATE,), 1)
    asked = {"names": [], "kernels": ["6.12"], "modules": None, "blocks": None, "suites": None}
    store = RunStore.create(
        directory,
        plan,
        target="vm",
        asked={**asked, "allow_host_changes": False},
        versions={"hyperbox": "0"},
        environment={},
    )
    record = store.record(Cell("6.12", "demo.work", lane), _attempt(), _EXPERIMENT)
    return store, plan, record


def test_equal_samples_are_identical(tmp_path: Path) -> None:
    _, _, record = _store(tmp_path)
    found = judge(_CELL, record, _attempt())
    assert (found.finding, found.equal, found.samples) == (Finding.IDENTICAL, 3, 3)


def test_the_last_bit_counts(tmp_path: Path) -> None:
    _, _, record = _store(tmp_path)
    other = replace(_SAMPLES[1], value=1.1 + 2.0**-52)
    found = judge(_CELL, record, _attempt(samples=(_SAMPLES[0], other, _SAMPLES[2])))
    assert (found.finding, found.equal) == (Finding.DIFFERENT, 2)
    assert found.differences == (f"block 1 one time: 1.1, now {other.value!r}",)


def test_a_sample_that_is_missing_is_different(tmp_path: Path) -> None:
    _, _, record = _store(tmp_path)
    assert judge(_CELL, record, _attempt(samples=_SAMPLES[:2])).equal == 2


def test_a_sample_too_many_is_different(tmp_path: Path) -> None:
    _, _, record = _store(tmp_path)
    more = (*_SAMPLES, Sample(3, 0, "one", "time", 1.0))
    assert judge(_CELL, record, _attempt(samples=more)).finding is Finding.DIFFERENT


def test_samples_that_are_damaged_are_broken(tmp_path: Path) -> None:
    _, _, record = _store(tmp_path)
    (record.directory / "samples.parquet").write_bytes(b"")
    found = judge(_CELL, record, _attempt())
    assert found.finding is Finding.BROKEN
    assert "damaged" in found.reason


@pytest.mark.parametrize("samples", [_SAMPLES, _SAMPLES[:1]])
def test_other_ingredients_make_it_void_and_are_named(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    _, _, record = _store(tmp_path)
    other = {**_MADE_OF, "qemu": {"sha256": "another"}, "images": {}}
    found = judge(_CELL, record, _attempt(samples=samples, environment=other))
    assert found.finding is Finding.INCOMPARABLE
    assert found.ingredients == ("QEMU", "guest root")


def test_packages_of_the_guest_that_moved_are_named_one_by_one(tmp_path: Path) -> None:
    _, _, record = _store(tmp_path)
    moved = {"libc6": "2.41-13", "python3": "3.13", "wrk": "4"}
    other = {**_MADE_OF, "guest_packages": moved}
    found = judge(_CELL, record, _attempt(environment=other))
    assert found.finding is Finding.INCOMPARABLE
    assert found.ingredients == ("guest packages (libc6 2.41-12 -> 2.41-13, wrk none -> 4)",)


def test_what_cannot_be_measured_is_broken(tmp_path: Path) -> None:
    _, _, record = _store(tmp_path)
    found = judge(_CELL, record, _attempt(state=AttemptState.FAILED, reason="the guest crashed"))
    assert (found.finding, found.reason) == (Finding.BROKEN, "failed: the guest crashed")


def test_cells_at_once_are_at_least_one(tmp_path: Path) -> None:
    _store(tmp_path)
    assert main(["reproduce", str(tmp_path), "--jobs", "0"]) == ExitCode.BAD_USAGE
    assert main(["reproduce", str(tmp_path), "--jobs", "-1"]) == ExitCode.BAD_USAGE


def test_only_measured_exact_cells_can_be_chosen(tmp_path: Path) -> None:
    store, plan, _ = _store(tmp_path / "exact")
    assert [cell for cell, _ in exact_cells(store, plan)] == [_CELL]
    assert [cell for cell, _ in exact_cells(store, plan, [_CELL.key])] == [_CELL]
    with pytest.raises(ConfigError, match="is not a measured exact cell") as caught:
        list(exact_cells(store, plan, ["6.12--no"]))
    assert _CELL.key in caught.value.hint
    store, plan, _ = _store(tmp_path / "fast", Lane.FAST)
    with pytest.raises(ConfigError, match="no measured cell of the exact lane"):
        list(exact_cells(store, plan))


@pytest.mark.vm
def test_a_run_is_reproduced_bit_for_bit_from_snapshots_made_anew(
    tmp_path: Path,
    no_leftovers: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caches = iter([tmp_path / "here"])  # for the run only: its snapshots are not trusted
    monkeypatch.setattr(snapshot_cache, "snapshots_directory", lambda: next(caches))
    run = tmp_path / "run"
    words = ["validate", "harness.false_alarm.processor", "--blocks", "1", "--kernel", "5.10"]
    status = main([*words, "--run-directory", str(run)])
    assert status == ExitCode.HARNESS_ERROR  # one block decides nothing, and has samples
    capsys.readouterr()
    assert main(["reproduce", str(run), "--json"]) == ExitCode.PASS
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    assert cell["finding"] == "identical"
    assert cell["equal"] == cell["samples"] > 0
