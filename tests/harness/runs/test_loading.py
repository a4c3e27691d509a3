"""Runs read back: old ones stay readable, damage is named and takes nothing else down."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperbox.errors import ConfigError, HarnessError, HyperboxError
from hyperbox.harness.model import Lane, Outcome, Verdict
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.page import write_report
from hyperbox.harness.runs.loading import load_run

OLD = Path(__file__).parents[1] / "report" / "data" / "schema-1"
"""A real run of hyperbox 0.1.0, frozen as it was written: two kernels, two experiments."""

HURT = "6.12--psi.pressure_reduction--exact"
HURT_GATES = ("psi.pressure_reduction", "psi.swap_reduction", "psi.no_degradation")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    directory = tmp_path / "copy"
    shutil.copytree(OLD, directory)
    return directory


def attempt_of(run: Path, key: str = HURT) -> Path:
    return run / "cells" / key / "attempt-1"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def assert_only_hurt(run: RunData, text: str) -> None:
    """The damaged cell is ERROR with its reason, all others are as they were, and told."""
    for verdict in run.verdicts:
        hurt = verdict.kernel == "6.12" and verdict.gate in HURT_GATES
        assert (verdict.outcome is Outcome.ERROR) is hurt
        if hurt:
            assert text in verdict.reason
            assert "\n" not in verdict.reason
    assert any(text in problem for problem in run.problems)


def test_a_run_of_schema_1_stays_readable(tmp_path: Path) -> None:
    """Whatever the present schema is: verdicts, kernels and report follow from the old records."""
    run = load_run(OLD)
    assert run.problems == ()
    assert [(v.gate, v.kernel, v.outcome) for v in run.verdicts] == [
        (gate, kernel, Outcome.PASS)
        for gate in ("psi.monitor_cpu", *HURT_GATES)
        for kernel in ("6.12", "7.3")
    ]
    found = {(v.gate, v.kernel): v.estimate for v in run.verdicts}
    assert found["psi.pressure_reduction", "7.3"] == pytest.approx(-0.5912, abs=5e-4)
    assert run.kernels[1]["release"] == "7.3.4+deb13-cloud-amd64"
    assert run.kernel_configs["7.3"]["CONFIG_PSI"] == "y"
    assert write_report(run, tmp_path)[0].stat().st_size > 10_000


def test_published_run_is_readable() -> None:
    published = Path(__file__).parents[3] / "reports" / "psi"
    assert load_run(published).problems == ()


def test_truncated_record(copy: Path) -> None:
    record = attempt_of(copy) / "record.json"
    record.write_bytes(record.read_bytes()[:100])
    assert_only_hurt(load_run(copy), "is not JSON")


def test_record_of_a_newer_schema(copy: Path) -> None:
    edit(attempt_of(copy) / "record.json", lambda d: d.update(schema_version=99))
    assert_only_hurt(load_run(copy), "has schema version 99")


def test_run_of_a_newer_schema_or_cut_short_is_one_line(copy: Path) -> None:
    edit(copy / "run.json", lambda d: d.update(schema_version=99))
    with pytest.raises(HarnessError, match="has schema version 99"):
        load_run(copy)
    (copy / "run.json").write_text("{")
    with pytest.raises(HarnessError, match=r"run\.json is not JSON"):
        load_run(copy)


def test_record_of_another_cell(copy: Path) -> None:
    shutil.rmtree(attempt_of(copy))
    shutil.copytree(attempt_of(copy, HURT.replace("6.12", "7.3")), attempt_of(copy))
    text = "holds a record of another cell: 7.3--psi.pressure_reduction--exact"
    assert_only_hurt(load_run(copy), text)


def test_samples_lost_or_changed(copy: Path) -> None:
    samples = attempt_of(copy) / "samples.parquet"
    samples.write_bytes(samples.read_bytes() + b"x")
    assert_only_hurt(load_run(copy), "SHA-256 is not the one on record")
    samples.unlink()
    assert_only_hurt(load_run(copy), "cannot read")


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("value", float("nan"), "is not finite"),
        ("value", float("inf"), "is not finite"),
        ("value", -3.0, "is negative in block 0"),
        ("arm", None, "holds no valid samples"),
    ],
)
def test_values_that_no_clock_gives(copy: Path, column: str, value: object, text: str) -> None:
    """A faithful record of nonsense: the hash fits, the number cannot be."""
    path = attempt_of(copy) / "samples.parquet"
    rows = pq.read_table(path).to_pylist()
    timed = next(row for row in rows if row["unit"] == "us")
    timed[column] = value
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    path.write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    edit(attempt_of(copy) / "record.json", lambda d: d["samples"].update(sha256=digest))
    assert_only_hurt(load_run(copy), text)


def test_samples_that_are_no_table(copy: Path) -> None:
    path = attempt_of(copy) / "samples.parquet"
    path.write_bytes(b"not parquet")
    digest = hashlib.sha256(b"not parquet").hexdigest()
    edit(attempt_of(copy) / "record.json", lambda d: d["samples"].update(sha256=digest))
    assert_only_hurt(load_run(copy), "holds no valid samples")


def negative_block(document: Any) -> None:
    document["blocks"][2]["seconds"]["stock"] = -1.0


def nan_block(document: Any) -> None:
    document["blocks"][2]["seconds"]["stock"] = float("nan")


def ended_first(document: Any) -> None:
    document["started"], document["ended"] = document["ended"], document["started"]


def no_such_day(document: Any) -> None:
    document["ended"] = "2026-13-41T00:00:00Z"


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (negative_block, "arm stock of block 2 took -1.0 s"),
        (nan_block, "a number is NaN or infinite"),
        (ended_first, "ended before it started"),
        (no_such_day, "has no valid time"),
    ],
)
def test_durations_that_cannot_be(
    copy: Path, damage: Callable[[Any], None], text: str, tmp_path: Path
) -> None:
    edit(attempt_of(copy) / "record.json", damage)
    run = load_run(copy)
    assert_only_hurt(run, text)
    page = write_report(run, tmp_path / "report")[0].read_text()
    assert "What could not be read" in page


def test_cells_that_the_plan_does_not_know_are_named(copy: Path) -> None:
    """A duplicate shard, or another run's kernel, thrown into the directory."""
    shutil.copytree(copy / "cells" / HURT, copy / "cells" / HURT.replace("6.12", "6.1"))
    run = load_run(copy)
    assert {v.outcome for v in run.verdicts} == {Outcome.PASS}
    assert len(run.problems) == 1
    assert "6.1--psi.pressure_reduction--exact belongs to no cell" in run.problems[0]


def test_a_run_without_any_cell_is_reported(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "cells")
    run = load_run(copy)
    assert {v.outcome for v in run.verdicts} == {Outcome.ERROR}
    assert all("not measured" in v.reason for v in run.verdicts)
    write_report(run, tmp_path / "report")


def test_no_run_directory_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run directory"):
        load_run(tmp_path)


def test_later_attempts_are_listed_and_do_not_count(copy: Path) -> None:
    """The first finished attempt decides; taking a later one would be choosing."""
    again = attempt_of(copy).with_name("attempt-2")
    shutil.copytree(attempt_of(copy), again)
    edit(again / "record.json", lambda d: d.update(attempt=2))
    (again / "samples.parquet").write_bytes(b"damaged")
    run = load_run(copy)
    assert {v.outcome for v in run.verdicts} == {Outcome.PASS}
    hurt = next(c for c in run.cells if c.cell.key == HURT)
    assert [a["number"] for a in hurt.attempts] == [1, 2]


@cache
def whole_verdicts() -> dict[tuple[str, str], Verdict]:
    return {(v.gate, v.kernel): v for v in load_run(OLD).verdicts}


FILES = sorted(path.relative_to(OLD) for path in OLD.rglob("*") if path.is_file())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    which=st.sampled_from(FILES),
    cut=st.booleans(),
    place=st.floats(0, 1, exclude_max=True),
    byte=st.integers(0, 255),
)
def test_any_damage_is_an_error_of_its_cell_at_most(
    which: Path, cut: bool, place: float, byte: int
) -> None:
    """One byte changed, or the file cut there: named, or harmless; other cells are untouched."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "run"
        shutil.copytree(OLD, directory)
        content = bytearray((directory / which).read_bytes())
        at = int(place * len(content))
        content[at:] = b"" if cut else bytes([byte, *content[at + 1 :]])
        (directory / which).write_bytes(content)
        try:
            run = load_run(directory)
        except HyperboxError as error:
            if which.name != "run.json" or "\n" in error.message:
                raise  # only the plan can take the whole run down, in one line
            return
    if which.name == "run.json":
        return
    hurt = which.parts[1]
    expected = whole_verdicts()
    keys = {
        (gate.id, c.cell.kernel): c.cell.key
        for c in run.cells
        for gate in run.gates
        if gate.experiment == c.experiment.id
    }
    for verdict in run.verdicts:
        before = expected[verdict.gate, verdict.kernel]
        if keys[verdict.gate, verdict.kernel] != hurt:
            assert verdict == before
        elif which.name == "samples.parquet" and verdict != before:
            assert verdict.outcome is Outcome.ERROR, "samples never change a verdict silently"


def test_attempts_keep_what_the_kernel_said(copy: Path) -> None:
    def fail(document: Any) -> None:
        document |= {"state": "failed", "reason": "the guest crashed", "error": "GuestCrash"}
        document |= {"fingerprint": "shrink_lruvec", "warnings": ["WARN at mm/vmscan.c:1"]}

    edit(attempt_of(copy) / "record.json", fail)
    hurt = next(c for c in load_run(copy).cells if c.cell.key == HURT)
    (told,) = hurt.attempts
    assert (told["error"], told["fingerprint"]) == ("GuestCrash", "shrink_lruvec")
    assert told["warnings"] == "WARN at mm/vmscan.c:1"


def _inexact(document: Any) -> None:
    document["environment"]["repeatability"] = {"exact": False, "reason": "two clones differ"}


def test_a_lane_that_failed_its_self_test_is_judged_like_the_hosts_time(copy: Path) -> None:
    edit(attempt_of(copy) / "record.json", _inexact)
    hurt = [v for v in load_run(copy).verdicts if v.kernel == "6.12" and v.gate in HURT_GATES]
    assert [v.gate for v in hurt] == list(HURT_GATES)
    for verdict in hurt:
        assert verdict.lane is Lane.EXACT  # the cell's, as planned
        assert "not exact on this machine (two clones differ)" in verdict.remarks


def _beside(document: Any) -> None:
    document["plan"]["beside"] = ["fast"]


def test_lanes_beside_stand_in_the_command_that_repeats_a_run(copy: Path) -> None:
    edit(copy / "run.json", _beside)
    run = load_run(copy)
    assert "--lane exact --beside fast" in run.reproduce
    missing = [v for v in run.verdicts if v.lane is Lane.FAST]
    assert {v.outcome for v in missing} == {Outcome.ERROR}
    assert all(v.lane is Lane.EXACT for v in run.deciding)
    assert len(run.deciding) + len(missing) == len(run.verdicts)
