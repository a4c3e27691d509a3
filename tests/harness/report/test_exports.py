"""Forms for programs, held against the schemas of those who read them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import kcidb_io
import pytest
import xmlschema
from jsonschema import Draft202012Validator

from hyperbox.harness.model import Outcome
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.exports import summary
from hyperbox.harness.report.form import Form, gate_summaries
from hyperbox.harness.report.github import annotation_lines, job_summary
from hyperbox.harness.report.junit import junit_xml
from hyperbox.harness.report.kcidb import kcidb
from hyperbox.harness.report.matrix import entries, release_headline

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
    assert sum(line.startswith("::warning ") for line in troubled) == 7  # 6 untested, 1 open


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


def test_form_names_the_worst_of_every_gate(troubled_run: RunData) -> None:
    marks = {one.gate.id: one.mark.word for one in gate_summaries(entries(troubled_run))}
    assert marks["psi.pressure_reduction"] == "ERROR"
    assert marks["psi.accuracy"] == "PASS"
    assert marks["psi.monitor_cpu"] == "UNTESTED"
    deviations = Form.of(troubled_run).deviations
    assert {entry.mark.word for entry in deviations} == {
        "SKIP",
        "ERROR",
        "UNTESTED",
        "INCONCLUSIVE",
    }


def test_summary_follows_its_published_schema(any_run: RunData) -> None:
    package = resources.files("hyperbox.harness.report")
    schema = json.loads(package.joinpath("schema/summary.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(json.dumps(summary(any_run))))


def test_release_needs_more_than_a_gate(run: RunData, troubled_run: RunData) -> None:
    """A hole keeps a release from passing; a failure must stand for the whole matrix."""
    told = summary(run)["release"]
    assert told["outcome"] in ("FAIL", "INCONCLUSIVE")
    assert all(one["p"] <= 0.025 for one in told["failing"])
    passing = replace(run, verdicts=tuple(v for v in run.verdicts if v.outcome is Outcome.PASS))
    assert release_headline(passing).outcome is Outcome.INCONCLUSIVE
    assert "3 are untested" in release_headline(passing).text
    one = replace(passing, gates=run.gates[:1])
    whole = replace(one, verdicts=tuple(v for v in one.verdicts if v.gate == run.gates[0].id))
    assert release_headline(whole).outcome is Outcome.PASS
    assert release_headline(troubled_run).outcome is Outcome.ERROR
