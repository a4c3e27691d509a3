"""Forms for programs, against the schemas of those who read them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import kcidb_io
import pandas as pd
import pytest
import xmlschema
from jsonschema import Draft202012Validator

from hyperbox.errors import ExitCode
from hyperbox.harness.model import Lane, Outcome
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.exports import (
    CSV_COLUMNS,
    summary,
    verdicts_csv,
    verdicts_document,
)
from hyperbox.harness.report.form import Form, gate_summaries
from hyperbox.harness.report.github import annotation_lines, job_summary
from hyperbox.harness.report.junit import junit_xml
from hyperbox.harness.report.kcidb import kcidb
from hyperbox.harness.report.markdown import markdown
from hyperbox.harness.report.matrix import entries, release_headline
from hyperbox.harness.verdicts.gates import exit_code

JUNIT = xmlschema.XMLSchema(str(Path(__file__).parent / "data" / "junit.xsd"))


@pytest.fixture(params=["run", "troubled_run", "empty_run"])
def any_run(request: pytest.FixtureRequest) -> RunData:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, RunData)
    return found


def test_junit_is_valid(any_run: RunData) -> None:
    JUNIT.validate(junit_xml(any_run))


def test_the_junit_schema_can_refuse() -> None:
    with pytest.raises(xmlschema.XMLSchemaException):
        JUNIT.validate('<testsuites><testsuite name="x"/></testsuites>')


def counts(document: str) -> Counter[str]:
    found = ET.fromstring(document).iter()
    return Counter(one.tag for one in found if one.tag in ("failure", "error", "skipped"))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_junit_is_green_for_a_pass_only(small_run: RunData, outcome: Outcome) -> None:
    """What a CI system reads off the file is what it reads off the exit code."""
    verdict = replace(small_run.verdicts[0], outcome=outcome)
    run = replace(small_run, verdicts=(verdict,))
    found = counts(junit_xml(run))
    assert bool(found) is (outcome is not Outcome.PASS)
    red = found["failure"] + found["error"] > 0
    assert red is (exit_code(run.deciding, strict=False) is not ExitCode.PASS)


def test_a_hole_is_told_wherever_a_build_is_looked_at(run: RunData) -> None:
    skip = replace(run.verdicts[0], outcome=Outcome.SKIP, reason="no PSI; no gate stands in")
    hole = replace(run, verdicts=(skip, *run.verdicts[1:]))
    covered = replace(run, verdicts=(replace(skip, stand_in="x"), *run.verdicts[1:]))
    shown = "no gate passes in the place of 1 skipped"
    assert shown in junit_xml(hole)
    assert shown in markdown(hole)
    assert len(annotation_lines(hole)) == len(annotation_lines(covered)) + 1
    assert shown not in junit_xml(covered) + markdown(covered)
    assert [row["stand_in"] for row in summary(covered)["verdicts"]].count("x") == 1


def test_junit_of_nothing_is_an_error(empty_run: RunData) -> None:
    assert counts(junit_xml(empty_run)) == {"error": 1}


def test_lanes_that_decide_nothing_break_no_build(small_run: RunData) -> None:
    beside = replace(small_run.verdicts[0], lane=Lane.FAST, outcome=Outcome.FAIL)
    run = replace(small_run, verdicts=(*small_run.verdicts, beside))
    assert counts(junit_xml(run)) == {"skipped": 1}
    assert exit_code(run.deciding, strict=False) is ExitCode.PASS
    kinds = [line.partition(" ")[0] for line in annotation_lines(run)]
    assert kinds == ["::notice", "::warning"]


HOSTILE = "".join(map(chr, range(0x20))) + "\x7f\x85\ud800\ufffe\u202e]]>&<'\"" + "x" * 100_000


def test_hostile_and_long_texts_pass_through_every_form(small_run: RunData) -> None:
    verdict = replace(
        small_run.verdicts[0], outcome=Outcome.FAIL, reason=HOSTILE, remarks=(HOSTILE,)
    )
    run = replace(small_run, verdicts=(verdict,), problems=(HOSTILE,), reproduce=HOSTILE)
    JUNIT.validate(junit_xml(run))
    kcidb_io.schema.LATEST.validate(kcidb(run))
    for document in (summary(run), kcidb(run), verdicts_document(run, 1, ())):
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    verdicts_csv(run).encode()
    for line in annotation_lines(run):
        assert len(line.encode()) < 1 << 16
        assert line.replace("\t", "").isprintable()


def test_what_could_not_be_read_stands_in_every_form(small_run: RunData) -> None:
    run = replace(small_run, problems=("record.json is not JSON",))
    shown = (
        junit_xml(run),
        json.dumps(kcidb(run)),
        json.dumps(summary(run)),
        json.dumps(verdicts_document(run, 0, ())),
        verdicts_csv(run),
        job_summary(run),
        "\n".join(annotation_lines(run)),
    )
    assert ["record.json is not JSON" in form for form in shown] == [True] * len(shown)
    assert counts(junit_xml(run)) == {"skipped": 1}


def test_kcidb_is_valid(any_run: RunData) -> None:
    document = json.loads(json.dumps(kcidb(any_run), allow_nan=False))
    kcidb_io.schema.LATEST.validate(document)
    ids = [test["id"] for test in document["tests"]]
    assert len(ids) == len(set(ids)) == len(entries(any_run))
    builds = {build["id"] for build in document["builds"]}
    checkouts = {checkout["id"] for checkout in document["checkouts"]}
    assert {test["build_id"] for test in document["tests"]} == builds
    assert {build["checkout_id"] for build in document["builds"]} == checkouts


def test_kcidb_says_what_the_verdicts_say(troubled_run: RunData) -> None:
    document = kcidb(troubled_run)
    status = {test["misc"]["outcome"]: test["status"] for test in document["tests"]}
    assert status["PASS"] == "PASS"
    assert status["UNTESTED"] == "MISS"
    assert status["ERROR"] == "ERROR"
    assert status["SKIP"] == "SKIP"
    assert status["INCONCLUSIVE"] == "DONE"
    numbers = [test.get("number", {}).get("value") for test in document["tests"]]
    assert any(number is not None for number in numbers)


def test_annotations_tell_only_what_calls_for_a_reader(run: RunData, troubled_run: RunData) -> None:
    lines = annotation_lines(run)
    assert lines[0].startswith("::notice title=hyperbox::Failed: psi.swap_reduction on 7.3")
    assert len([line for line in lines if line.startswith("::error ")]) == 2
    troubled = annotation_lines(troubled_run)
    assert not any("\n" in line or "\r" in line for line in troubled)
    assert any("panic" in line for line in troubled if line.startswith("::error "))
    assert (
        sum(line.startswith("::warning ") for line in troubled) == 8
    )  # 6 untested, 1 open, 1 SKIP


def test_annotations_escape_what_would_end_them(small_run: RunData) -> None:
    bad = replace(small_run.verdicts[0], outcome=Outcome.FAIL, reason="90 %\nand: more, ::error::")
    kernels = ({"label": "a:b,c"},)
    lines = annotation_lines(replace(small_run, verdicts=(bad,), kernels=kernels))
    error = next(line for line in lines if line.startswith("::error "))
    assert "::90 %25%0Aand: more, ::error::" in error
    assert len(lines) == len([line for line in lines if re.match(r"::\w+ title=[^,:]*::", line)])


def test_annotations_stop_at_what_github_shows(small_run: RunData) -> None:
    many = replace(small_run, problems=tuple(f"cell {n} is damaged" for n in range(25)))
    errors = [line for line in annotation_lines(many) if line.startswith("::error ")]
    assert len(errors) == 10
    assert errors[-1].endswith("16 more are in the report")


def test_job_summary_keeps_below_githubs_limit(small_run: RunData) -> None:
    assert job_summary(small_run).startswith("# ")
    huge = replace(small_run, problems=tuple(f"cell {n} ä" * 20 for n in range(20_000)))
    text = job_summary(huge)
    assert len(text.encode()) < 1024 * 1024
    assert text.endswith("Cut here: the whole report is in the run directory.\n")


def test_job_summary_fills_what_earlier_commands_left(small_run: RunData) -> None:
    huge = replace(small_run, problems=tuple(f"cell {n}" * 20 for n in range(20_000)))
    for taken in (0, 1, 1_000_000, (1 << 20) - 200):
        text = job_summary(huge, taken=taken)
        assert 0 < len(text.encode()) <= (1 << 20) - taken
        assert text.endswith("the whole report is in the run directory.\n")
    for taken in ((1 << 20) - 10, 1 << 20, 1 << 21):
        assert job_summary(huge, taken=taken) == ""


def test_form_names_the_worst_of_every_gate(troubled_run: RunData) -> None:
    marks = {one.gate.id: one.style.word for one in gate_summaries(entries(troubled_run))}
    assert marks["psi.pressure_reduction"] == "ERROR"
    assert marks["psi.accuracy"] == "PASS"
    assert marks["psi.monitor_cpu"] == "UNTESTED"
    deviations = Form.of(troubled_run).deviations
    assert {entry.style.word for entry in deviations} == {
        "SKIP",
        "ERROR",
        "UNTESTED",
        "INCONCLUSIVE",
    }


def published(name: str) -> dict[str, Any]:
    package = resources.files("hyperbox.harness.report")
    found: dict[str, Any] = json.loads(package.joinpath(f"schema/{name}.json").read_text())
    return found


def test_summary_follows_its_published_schema(any_run: RunData) -> None:
    Draft202012Validator.check_schema(published("summary"))
    Draft202012Validator(published("summary")).validate(json.loads(json.dumps(summary(any_run))))


def test_printed_verdicts_follow_their_published_schema(any_run: RunData) -> None:
    Draft202012Validator.check_schema(published("verdicts"))
    bad = [replace(v, details={"power": math.nan}, high=math.inf) for v in any_run.verdicts]
    for run in (any_run, replace(any_run, verdicts=tuple(bad))):
        document = verdicts_document(run, 0, (Path("report.html"),))
        text = json.dumps(document, allow_nan=False)
        Draft202012Validator(published("verdicts")).validate(json.loads(text))


@pytest.mark.parametrize("name", ["comparison", "summary", "verdicts"])
def test_every_field_is_explained(name: str) -> None:
    assert [*nameless(published(name))] == []


def nameless(schema: Any, path: str = "") -> Iterator[str]:
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key == "properties":
            yield from (f"{path}/{n}" for n, one in value.items() if "description" not in one)
        yield from nameless(value, f"{path}/{key}")


def as_frame(text: str, **options: Any) -> pd.DataFrame:
    frame: pd.DataFrame = pd.read_csv(io.StringIO(text), **options)
    return frame


def test_csv_opens_in_pandas(run: RunData, troubled_run: RunData) -> None:
    frame = as_frame(verdicts_csv(run))
    assert tuple(frame.columns) == CSV_COLUMNS
    assert len(frame) == len(entries(run))
    numbers = ("n", "estimate", "low", "high", "level", "limit", "p_met", "p_missed", "power")
    assert all(pd.api.types.is_numeric_dtype(frame[name]) for name in numbers)
    troubled = as_frame(verdicts_csv(troubled_run), dtype={"kernel": str})
    assert set(troubled.kernel) == {"5.10", "6.12", "7.3"}
    assert troubled[troubled.outcome == "UNTESTED"].estimate.isna().all()


def test_kernels_stay_apart_also_where_labels_are_read_as_numbers(run: RunData) -> None:
    renamed = {"5.10": "6.10", "6.12": "6.1"}
    kernels = [{**k, "label": renamed.get(str(k["label"]), k["label"])} for k in run.kernels]
    verdicts = [replace(v, kernel=renamed.get(v.kernel, v.kernel)) for v in run.verdicts]
    frame = as_frame(
        verdicts_csv(replace(run, cells=(), kernels=tuple(kernels), verdicts=tuple(verdicts)))
    )
    assert frame.kernel.nunique() == 2
    assert frame.release.nunique() == 3


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\n=1", " =cmd|' /C calc'!A0"])
def test_csv_holds_no_formula(small_run: RunData, text: str) -> None:
    bad = replace(small_run.verdicts[0], reason=text, remarks=(text,), estimate=-0.5)
    run = replace(small_run, verdicts=(bad,), problems=(text,))
    rows = list(csv.DictReader(io.StringIO(verdicts_csv(run))))
    for row in rows:
        texts = {key: value for key, value in row.items() if key != "estimate"}
        assert not [value for value in texts.values() if value.startswith(tuple("=+-@\t\r"))]
    assert rows[0]["estimate"] == "-0.5"
    assert len(verdicts_csv(run).splitlines()) == 3


def test_release_needs_more_than_a_gate(run: RunData, troubled_run: RunData) -> None:
    """A hole keeps a release from passing; a failure must stand for the whole matrix."""
    shown = summary(run)["release"]
    assert shown["outcome"] in ("FAIL", "INCONCLUSIVE")
    assert all(one["p"] <= 0.025 for one in shown["failing"])
    passing = replace(run, verdicts=tuple(v for v in run.verdicts if v.outcome is Outcome.PASS))
    assert release_headline(passing).outcome is Outcome.INCONCLUSIVE
    assert "3 are untested" in release_headline(passing).text
    one = replace(passing, gates=run.gates[:1])
    whole = replace(one, verdicts=tuple(v for v in one.verdicts if v.gate == run.gates[0].id))
    assert release_headline(whole).outcome is Outcome.PASS
    assert release_headline(troubled_run).outcome is Outcome.ERROR
