"""JUnit XML: one test suite per kernel, one test case per gate.

INCONCLUSIVE, SKIP and untested gates are "skipped" with their word first: a CI system
must never count them as passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from hyperbox.harness.model import Outcome
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.matrix import Column, Entry, columns, entries
from hyperbox.harness.verdicts.wording import legible

__all__ = ["junit_xml"]

_TAGS = {Outcome.FAIL: "failure", Outcome.ERROR: "error"}


def junit_xml(run: RunData) -> str:
    """Give the run as a JUnit XML document."""
    root = ET.Element("testsuites", {"name": "hyperbox validate"})
    suites: dict[Column, list[Entry]] = {column: [] for column in columns(run)}
    for entry in entries(run):
        suites[entry.column].append(entry)
    for column, matrix in suites.items():
        _add_suite(root, run, column, matrix)
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _add_suite(root: ET.Element, run: RunData, column: Column, matrix: Sequence[Entry]) -> None:
    tags = [_tag(entry) for entry in matrix]
    suite = ET.SubElement(
        root,
        "testsuite",
        {
            "name": legible(f"hyperbox.{column.label}"),
            "tests": str(len(matrix)),
            "failures": str(tags.count("failure")),
            "errors": str(tags.count("error")),
            "skipped": str(tags.count("skipped")),
            "time": f"{_seconds(run, column):.3f}",
            "timestamp": legible(run.created),
        },
    )
    properties = ET.SubElement(suite, "properties")
    facts = {"run": run.run_id, "lane": column.lane, "hyperbox": run.hyperbox_version}
    for name, value in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": legible(value)})
    for entry, tag in zip(matrix, tags, strict=True):
        case = ET.SubElement(
            suite,
            "testcase",
            {"classname": legible(f"hyperbox.{column.label}"), "name": legible(entry.gate.id)},
        )
        if tag:
            message = legible(f"{entry.mark.word}: {entry.reason}")
            child = ET.SubElement(case, tag, {"message": message})
            if tag != "skipped":
                child.set("type", entry.mark.word)
                child.text = legible(_evidence(entry))
        ET.SubElement(case, "system-out").text = legible(_evidence(entry))


def _tag(entry: Entry) -> str:
    if entry.verdict is None:
        return "skipped"
    if entry.verdict.outcome is Outcome.PASS:
        return ""
    return _TAGS.get(entry.verdict.outcome, "skipped")


def _evidence(entry: Entry) -> str:
    lines = [f"target: {entry.gate.target} (limit {entry.limit_text})", entry.reason]
    return "\n".join([*lines, *entry.remarks])


def _seconds(run: RunData, column: Column) -> float:
    """Sum the host time of all attempts on a kernel in a lane."""
    total = 0.0
    for cell in run.cells:
        if (cell.cell.kernel, cell.cell.lane) == (column.kernel, column.lane):
            for attempt in cell.attempts:
                seconds = attempt.get("seconds")
                total += seconds if isinstance(seconds, (int, float)) else 0.0
    return total
