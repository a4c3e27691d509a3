"""JUnit XML: one test suite per kernel, one test case per gate.

What is not a PASS is never green, and an error or failure stands in the file exactly if the
run's exit code says so. INCONCLUSIVE, SKIP and untested gates are "skipped" with their word
first; so is all that decides nothing: the lanes beside, and what could not be read, in the
suite ``hyperbox.record``. A run that decided nothing is an error of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from hyperbox.errors import ExitCode
from hyperbox.harness.model import Outcome
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.matrix import (
    Column,
    MatrixEntry,
    columns,
    entries,
    headline,
    release_headline,
)
from hyperbox.harness.verdicts.release import release
from hyperbox.printing import legible

__all__ = ["junit_xml"]

_TAGS = {Outcome.FAIL: "failure", Outcome.ERROR: "error"}


def junit_xml(run: RunData) -> str:
    """Return the run as a JUnit XML document."""
    root = ET.Element("testsuites", {"name": "hyperbox validate"})
    suites: dict[Column, list[MatrixEntry]] = {column: [] for column in columns(run)}
    for entry in entries(run):
        suites[entry.column].append(entry)
    for column, matrix in suites.items():
        _add_suite(root, run, column, matrix)
    _add_record(root, run)
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _add_suite(
    root: ET.Element, run: RunData, column: Column, matrix: Sequence[MatrixEntry]
) -> None:
    name = legible(f"hyperbox.{column.label}")
    tags = [_tag(run, entry) for entry in matrix]
    suite = _suite(root, run, name, tags)
    suite.set("time", f"{_seconds(run, column):.3f}")
    properties = ET.SubElement(suite, "properties")
    facts = {"run": run.run_id, "lane": column.lane, "hyperbox": run.hyperbox_version}
    for key, value in facts.items():
        ET.SubElement(properties, "property", {"name": key, "value": legible(value)})
    for entry, tag in zip(matrix, tags, strict=True):
        case = ET.SubElement(suite, "testcase", {"classname": name, "name": legible(entry.gate.id)})
        if tag:
            _add_finding(case, tag, entry.style.word, entry.reason, _evidence(entry))
        ET.SubElement(case, "system-out").text = legible(_evidence(entry))


def _add_record(root: ET.Element, run: RunData) -> None:
    """Add what is wrong with the run as a whole: what was left out, skipped, or not decided."""
    news = headline(run)
    found = [("skipped", "UNREADABLE", problem) for problem in run.problems]
    if release(run.deciding).holes:
        found.append(("skipped", "SKIP", release_headline(run).text))
    if news.code is ExitCode.HARNESS_ERROR and news.outcome is not Outcome.ERROR:
        found.append(("error", "UNDECIDED", news.text))
    if not found:
        return
    name = "hyperbox.record"
    suite = _suite(root, run, name, [tag for tag, _, _ in found])
    for number, (tag, word, text) in enumerate(found, 1):
        case = ET.SubElement(
            suite, "testcase", {"classname": name, "name": f"{word.lower()} {number}"}
        )
        _add_finding(case, tag, word, text, text)


def _suite(root: ET.Element, run: RunData, name: str, tags: Sequence[str]) -> ET.Element:
    return ET.SubElement(
        root,
        "testsuite",
        {
            "name": name,
            "tests": str(len(tags)),
            "failures": str(tags.count("failure")),
            "errors": str(tags.count("error")),
            "skipped": str(tags.count("skipped")),
            "timestamp": legible(run.created),
        },
    )


def _add_finding(case: ET.Element, tag: str, word: str, reason: str, evidence: str) -> None:
    child = ET.SubElement(case, tag, {"message": legible(f"{word}: {reason}")})
    if tag != "skipped":
        child.set("type", word)
        child.text = legible(evidence)


def _tag(run: RunData, entry: MatrixEntry) -> str:
    if entry.verdict is None:
        return "skipped"
    if entry.verdict.outcome is Outcome.PASS:
        return ""
    decides = entry.lane is run.lane
    return _TAGS.get(entry.verdict.outcome, "skipped") if decides else "skipped"


def _evidence(entry: MatrixEntry) -> str:
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
