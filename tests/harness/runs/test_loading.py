"""Runs read back: old ones stay readable, damage is named and takes nothing else down."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.harness.model import Lane, Outcome
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.exports import summary, verdicts_csv
from hyperbox.harness.report.junit import junit_xml
from hyperbox.harness.report.kcidb import kcidb
from hyperbox.harness.report.page import write_report
from hyperbox.harness.runs.loading import load_run

DATA = Path(__file__).parents[1] / "report" / "data"
OLD = DATA / "schema-1"
"""A real run of hyperbox 0.1.0, frozen as it was written: two kernels, two experiments."""
NEW = DATA / "schema-2"
"""The same, sealed and with logs."""

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
    """The damaged cell is ERROR with its reason, all others are as they were, and shown."""
    for verdict in run.verdicts:
        hurt = verdict.kernel == "6.12" and verdict.gate in HURT_GATES
        assert (verdict.outcome is Outcome.ERROR) is hurt
        if hurt:
            assert text in verdict.reason
            assert "\n" not in verdict.reason
    assert any(text in problem for problem in run.problems)


@pytest.mark.parametrize("frozen", [OLD, NEW])
def test_runs_of_any_schema_stay_readable(frozen: Path, tmp_path: Path) -> None:
    """Whatever the present schema is: verdicts, kernels and report follow from the old records."""
    run = load_run(frozen)
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


@pytest.mark.parametrize(("waited", "shown"), [(0.0, False), (0.9, False), (5.0, True)])
def test_a_host_with_too_few_processors_is_told_in_its_own_time(
    copy: Path, waited: float, shown: bool
) -> None:
    def crowd(document: Any) -> None:
        for block in document["blocks"]:
            block["cpu_seconds"] = dict.fromkeys(block["order"], 10.0)
            block["run_delay_seconds"] = dict.fromkeys(block["order"], waited)

    def doubt(document: Any) -> None:
        document["environment"]["repeatability"] = {"exact": False, "reason": "planted"}

    record = attempt_of(copy) / "record.json"
    edit(record, crowd)
    assert "the host was busy" not in str(load_run(copy).verdicts)  # instructions do not wait
    edit(record, doubt)
    remarks = [v.remarks for v in load_run(copy).verdicts if v.gate in HURT_GATES]
    busy = [str(found) for found in remarks if "the host was busy: 33% of" in str(found)]
    assert len(busy) == (len(HURT_GATES) if shown else 0)


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
        ("value", -3.0, "is -3 in block 0, which is not at least 0"),
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


def negative_cpu(document: Any) -> None:
    document["blocks"][2]["cpu_seconds"] = {"stock": -1.0}


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
        (negative_cpu, "arm stock of block 2 took -1.0 s"),
        (nan_block, "a number is NaN or infinite"),
        (ended_first, "ended before it started"),
        (no_such_day, "ended is not a valid time"),
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


@pytest.mark.parametrize(
    ("status", "shown"), [("interrupted", "not measured"), ("complete", "holds no attempt")]
)
def test_a_run_without_any_cell_is_reported(
    copy: Path, tmp_path: Path, status: str, shown: str
) -> None:
    shutil.rmtree(copy / "cells")
    edit(copy / "run.json", lambda d: d.update(status=status))
    run = load_run(copy)
    assert {v.outcome for v in run.verdicts} == {Outcome.ERROR}
    assert run.verdicts
    assert all(shown in v.reason for v in run.verdicts)
    assert len(run.problems) == (4 if status == "complete" else 0)
    write_report(run, tmp_path / "report")


def test_no_run_directory_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run directory"):
        load_run(tmp_path)


def test_cells_of_one_kernel_on_two_builds_are_named(copy: Path) -> None:
    record = attempt_of(copy) / "record.json"
    known = json.loads(record.read_text())["environment"]["kernel"]["sha256"]
    edit(record, lambda d: d["environment"]["kernel"].update(sha256="0" * 64))
    (problem,) = load_run(copy).problems
    assert problem.startswith("cells of kernel 6.12 were measured on several builds: ")
    assert "0" * 12 in problem
    assert known[:12] in problem


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


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("attempt-2", "is the record of attempt 1"),
        ("attempt-\N{SUPERSCRIPT TWO}", "holds no attempt, though the run is complete"),
        ("attempt-01", "holds no attempt, though the run is complete"),
    ],
)
def test_an_attempt_of_another_name_is_none(copy: Path, name: str, shown: str) -> None:
    attempt_of(copy).rename(attempt_of(copy).with_name(name))
    assert_only_hurt(load_run(copy), shown)


def test_a_lost_attempt_may_be_the_one_that_counts(copy: Path) -> None:
    """Without it a later one would count, which would be choosing."""
    again = attempt_of(copy).with_name("attempt-2")
    attempt_of(copy).rename(again)
    edit(again / "record.json", lambda d: d.update(attempt=2))
    assert_only_hurt(load_run(copy), "has lost attempt 1")


def as_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


def as_loop(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(path.name)


@pytest.mark.parametrize("change", [as_file, as_loop])
@pytest.mark.parametrize("depth", [0, 1])
def test_what_is_no_directory_is_named(
    copy: Path, change: Callable[[Path], None], depth: int
) -> None:
    path = (attempt_of(copy), attempt_of(copy).parent)[depth]
    change(path)
    assert_only_hurt(load_run(copy), f"cannot read {path}")


def test_a_pipe_for_a_file_holds_nobody_up(copy: Path) -> None:
    for name in ("record.json", "kernel.config"):
        (attempt_of(copy) / name).unlink()
        os.mkfifo(attempt_of(copy) / name)
    assert_only_hurt(load_run(copy), "not a regular file")


@pytest.mark.parametrize("name", ["serial.log", "dmesg.txt"])
def test_a_changed_log_is_told_and_takes_no_verdict(tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(NEW, copy)
    path = attempt_of(copy) / name
    path.write_text(path.read_text()[:-1])
    assert load_run(copy).problems == (f"{path} is damaged: its SHA-256 is not the one on record",)
    assert load_run(copy).verdicts == load_run(NEW).verdicts
    path.unlink()
    assert load_run(copy).problems == ()  # logs may be taken away


def test_a_changed_configuration_is_not_used(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(NEW, copy)
    first = copy / "cells" / "6.12--psi.monitor_cpu--exact" / "attempt-1" / "kernel.config"
    first.write_text("CONFIG_PSI=n\n")
    run = load_run(copy)
    assert run.problems == (f"{first} is damaged: its SHA-256 is not the one on record",)
    assert run.kernel_configs["6.12"]["CONFIG_PSI"] == "y"  # another cell's


@pytest.mark.parametrize("found", ["x", [1], {"exact": "yes"}, {"exact": None}])
def test_a_self_test_that_cannot_be_read_is_not_trusted(copy: Path, found: object) -> None:
    edit(attempt_of(copy) / "record.json", lambda d: d["environment"].update(repeatability=found))
    hurt = [v for v in load_run(copy).verdicts if v.kernel == "6.12" and v.gate in HURT_GATES]
    assert hurt
    assert all("not surely exact" in "; ".join(verdict.remarks) for verdict in hurt)


def odd(environment: Any) -> None:
    environment["kernel"] = {"label": ["x"], "release": 7, "version": {"a": 1}, "remarks": 3}
    environment["qemu"] = environment["host"] = [None, {"deep": [True]}]


def test_any_environment_is_reported(copy: Path, tmp_path: Path) -> None:
    edit(attempt_of(copy) / "record.json", lambda d: odd(d["environment"]))
    edit(copy / "run.json", lambda d: odd(d["environment"]))
    run = load_run(copy)
    assert {v.outcome for v in run.verdicts} == {Outcome.PASS}
    write_report(run, tmp_path / "report")


def twice(key: str) -> Callable[[Any], None]:
    return lambda document: document["plan"][key].append(document["plan"][key][0])


def without_experiment(document: Any) -> None:
    document["plan"]["gates"][0]["experiment"] = "psi.none"


def outside(document: Any) -> None:
    document["plan"]["gates"][0]["id"] = "../../elsewhere"


def same_arms(document: Any) -> None:
    for experiment in document["plan"]["experiments"]:
        experiment["arms"].append(experiment["arms"][0])


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (twice("kernels"), "kernel '6.12' stands twice"),
        (twice("gates"), "gate 'psi.monitor_cpu' stands twice"),
        (twice("experiments"), "experiment 'psi.monitor_cpu' stands twice"),
        (same_arms, "arm of psi.monitor_cpu 'monitor' stands twice"),
        (lambda d: d["plan"].update(beside=["exact"]), "lane 'exact' stands twice"),
        (without_experiment, "needs the experiment 'psi.none', not planned"),
        (outside, "gate '../../elsewhere' is not a name"),
        (lambda d: d["plan"].update(kernels=["6\0"]), "is not a name"),
        (lambda d: d.update(created="2026-99-01T00:00:00Z"), "created is not a valid time"),
    ],
)
def test_plans_that_contradict_themselves_are_refused(
    copy: Path, change: Callable[[Any], None], shown: str
) -> None:
    """One name for two things would give one of them the other's verdict."""
    edit(copy / "run.json", change)
    with pytest.raises(HarnessError) as caught:
        load_run(copy)
    assert shown in caught.value.message
    assert str(copy / "run.json") in caught.value.message
    assert caught.value.hint


def test_attempts_keep_what_the_kernel_said(copy: Path) -> None:
    def fail(document: Any) -> None:
        document |= {"state": "failed", "reason": "the guest crashed", "error": "GuestCrash"}
        document |= {"fingerprint": "shrink_lruvec", "warnings": ["WARN at mm/vmscan.c:1"]}

    edit(attempt_of(copy) / "record.json", fail)
    hurt = next(c for c in load_run(copy).cells if c.cell.key == HURT)
    (shown,) = hurt.attempts
    assert (shown["error"], shown["fingerprint"]) == ("GuestCrash", "shrink_lruvec")
    assert shown["warnings"] == "WARN at mm/vmscan.c:1"


def _inexact(document: Any) -> None:
    document["environment"]["repeatability"] = {"exact": False, "reason": "two clones differ"}


def test_a_lane_that_failed_its_self_test_is_judged_like_the_hosts_time(copy: Path) -> None:
    edit(attempt_of(copy) / "record.json", _inexact)
    hurt = [v for v in load_run(copy).verdicts if v.kernel == "6.12" and v.gate in HURT_GATES]
    assert [v.gate for v in hurt] == list(HURT_GATES)
    for verdict in hurt:
        assert verdict.lane is Lane.EXACT  # the cell's, as planned
        assert "not exact on this machine (two clones differ)" in verdict.remarks


def test_a_kernel_that_nobody_vouches_for_is_named_in_every_report(
    copy: Path, tmp_path: Path
) -> None:
    def unsigned(document: Any) -> None:
        document["environment"]["kernel"]["unsigned"] = ["linux-modules-7.1.8"]
        document["environment"]["guest_remarks"] = ["guest packages: libc6 1 is not there"]

    edit(attempt_of(copy) / "record.json", unsigned)
    run = load_run(copy)
    said = "unsigned kernel: no signed list names linux-modules-7.1.8"
    hurt = [v for v in run.verdicts if v.kernel == "6.12" and v.gate in HURT_GATES]
    assert [said in verdict.remarks for verdict in hurt] == [True] * len(HURT_GATES)
    moved = "guest packages: libc6 1 is not there"
    assert [moved in verdict.remarks for verdict in hurt] == [True] * len(HURT_GATES)
    write_report(run, tmp_path)
    forms = (
        (tmp_path / "report.html").read_text(),
        (tmp_path / "report.md").read_text(),
        junit_xml(run),
        verdicts_csv(run),
        json.dumps(summary(run)),
        json.dumps(kcidb(run)),
    )
    assert [said.rpartition(" ")[2] in form for form in forms] == [True] * len(forms)


def _beside(document: Any) -> None:
    document["plan"]["beside"] = ["fast"]


def test_lanes_beside_stand_in_the_command_that_repeats_a_run(copy: Path) -> None:
    edit(copy / "run.json", _beside)
    run = load_run(copy)
    assert "--lane exact --beside fast" in run.reproduce
    missing = [v for v in run.verdicts if v.lane is Lane.FAST]
    assert {v.outcome for v in missing} == {Outcome.ERROR}
    assert run.deciding
    assert all(v.lane is Lane.EXACT for v in run.deciding)
    assert len(run.deciding) + len(missing) == len(run.verdicts)
