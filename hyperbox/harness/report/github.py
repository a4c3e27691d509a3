"""The run for GitHub Actions: annotation lines and the job summary. Pure.

Follows "Workflow commands for GitHub Actions": data escapes %, CR and LF, properties also
colons and commas. GitHub shows ten annotations of a kind and takes a summary of 1 MiB.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyperbox.harness.model import Outcome
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.markdown import markdown
from hyperbox.harness.report.matrix import Entry, entries, headline
from hyperbox.harness.verdicts.wording import legible

__all__ = ["annotation_lines", "job_summary"]

_SHOWN = 10
_SUMMARY_BYTES = 1_000_000
_KINDS = {Outcome.FAIL: "error", Outcome.ERROR: "error", Outcome.INCONCLUSIVE: "warning"}


def annotation_lines(run: RunData) -> tuple[str, ...]:
    """Give one ``::error``, ``::warning`` or ``::notice`` line for what calls for a reader.

    FAIL and ERROR are errors, INCONCLUSIVE and untested are warnings, the verdict sentence
    is a notice. Of each kind the last of ten lines counts those that are left out.
    """
    told = headline(run)
    lines: dict[str, list[str]] = {"error": [], "warning": []}
    for entry in entries(run):
        kind = _kind(entry)
        if kind:
            title = f"{entry.mark.word} {entry.gate.id} on {entry.column.label}"
            lines[kind].append(_line(kind, title, entry.reason))
    lines["error"] += [_line("error", "Unreadable", problem) for problem in run.problems]
    found = [_line("notice", "hyperbox", told.text)]
    for kind, of_kind in lines.items():
        found += _capped(kind, of_kind)
    return tuple(found)


def job_summary(run: RunData) -> str:
    """Give the Markdown report, cut at a line where GitHub would refuse it."""
    text = markdown(run)
    if len(text.encode()) <= _SUMMARY_BYTES:
        return text
    cut = text.encode()[:_SUMMARY_BYTES].decode(errors="ignore")
    return cut[: cut.rindex("\n")] + "\n\nCut here: the whole report is in the run directory.\n"


def _kind(entry: Entry) -> str | None:
    if entry.verdict is None:
        return "warning"
    return _KINDS.get(entry.verdict.outcome)


def _capped(kind: str, lines: list[str]) -> Iterator[str]:
    if len(lines) <= _SHOWN:
        yield from lines
        return
    yield from lines[: _SHOWN - 1]
    more = len(lines) - _SHOWN + 1
    yield _line(kind, "More", f"{more} more are in the report")


def _line(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return legible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
