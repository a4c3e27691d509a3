"""The run for GitHub Actions: annotation lines and the job summary. Pure.

Follows "Workflow commands for GitHub Actions": data escapes %, CR and LF, properties also
colons and commas. Of each step GitHub shows ten annotations of a kind, with 64 KiB of message
and 255 characters of title; a summary beyond 1 MiB is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyperbox.harness.model import Outcome
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.markdown import markdown
from hyperbox.harness.report.matrix import MatrixEntry, entries, headline
from hyperbox.printing import legible

__all__ = ["annotation_lines", "job_summary"]

_SHOWN = 10
_SUMMARY_BYTES = 1 << 20
_MESSAGE_BYTES = 60_000
_TITLE_CHARACTERS = 250
_CUT = "\n\nCut here: the whole report is in the run directory.\n"
_KINDS = {Outcome.FAIL: "error", Outcome.ERROR: "error", Outcome.INCONCLUSIVE: "warning"}


def annotation_lines(run: RunData) -> tuple[str, ...]:
    """Return one ``::error``, ``::warning`` or ``::notice`` line for what calls for a reader.

    FAIL and ERROR are errors; INCONCLUSIVE, untested, skipped without a gate in its place and all
    of that in lanes that decide nothing are warnings; the verdict sentence is a notice. Of each
    kind the last of ten lines counts those that are left out.
    """
    sentence = headline(run).text
    lines: dict[str, list[str]] = {"error": [], "warning": []}
    for entry in entries(run):
        kind = _kind(run, entry)
        if kind:
            title = f"{entry.style.word} {entry.gate.id} on {entry.column.label}"
            lines[kind].append(_line(kind, title, entry.reason))
    lines["error"] += [_line("error", "Unreadable", problem) for problem in run.problems]
    found = [_line("notice", "hyperbox", sentence)]
    for kind, of_kind in lines.items():
        found += _capped(kind, of_kind)
    return tuple(found)


def job_summary(run: RunData, *, taken: int = 0) -> str:
    """Return the Markdown report, cut at a line where GitHub would refuse it.

    Parameters
    ----------
    taken
        Bytes of the step's summary that are there already; empty text if nothing more fits.
    """
    whole = markdown(run).encode()
    room = _SUMMARY_BYTES - taken
    if len(whole) <= room:
        return whole.decode()
    cut = whole[: max(0, room - len(_CUT))].decode(errors="ignore").rpartition("\n")[0]
    return cut + _CUT if cut else ""


def _kind(run: RunData, entry: MatrixEntry) -> str | None:
    if entry.verdict is None or entry.verdict.is_hole:
        return "warning"
    kind = _KINDS.get(entry.verdict.outcome)
    return "warning" if kind and entry.lane is not run.lane else kind


def _capped(kind: str, lines: list[str]) -> Iterator[str]:
    if len(lines) <= _SHOWN:
        yield from lines
        return
    yield from lines[: _SHOWN - 1]
    more = len(lines) - _SHOWN + 1
    yield _line(kind, "More", f"{more} more are in the report")


def _line(kind: str, title: str, message: str) -> str:
    text = legible(message).encode()
    if len(text) > _MESSAGE_BYTES:
        text = text[:_MESSAGE_BYTES] + b" ..."
    cut = _data(text.decode(errors="ignore"))
    return f"::{kind} title={_property(legible(title)[:_TITLE_CHARACTERS])}::{cut}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
