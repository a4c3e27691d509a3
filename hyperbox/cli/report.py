"""``hyperbox report``: make the report of a run directory again, and show its verdicts."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hyperbox import files
from hyperbox.console import TerminalConsole
from hyperbox.errors import ConfigError, ExitCode, HarnessError, HyperboxError
from hyperbox.harness.report.context import asked_for
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.exports import verdicts_document
from hyperbox.harness.report.github import annotation_lines, job_summary
from hyperbox.harness.report.history import GateHistory, history
from hyperbox.harness.report.page import write_report
from hyperbox.harness.report.published import index_page
from hyperbox.harness.report.tables import headline_text, verdict_table
from hyperbox.harness.runs.loading import load_run
from hyperbox.harness.verdicts.gates import exit_code
from hyperbox.printing import complain, legible

__all__ = ["add_parser", "finish", "say"]

_JOB_SUMMARY = "GITHUB_STEP_SUMMARY"
_AGAIN = "a cell whose directory is taken away is measured again by hyperbox validate"


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "report",
        help="make the report of a run again",
        description="Decides the gates of a run directory from its records, writes the report "
        "into it, and exits as the run did.",
    )
    parser.add_argument("directory", type=Path, metavar="RUN_DIRECTORY")
    parser.add_argument(
        "--index",
        action="store_true",
        help="RUN_DIRECTORY holds published runs, each with its report: make its README.md from "
        "their summaries, and do nothing else",
    )
    parser.add_argument(
        "--history",
        type=Path,
        nargs="+",
        default=(),
        metavar="RUN",
        help="earlier runs: show each gate over time, with change points",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write; by default RUN_DIRECTORY/report"
    )
    parser.add_argument(
        "--draw",
        action="append",
        default=[],
        metavar="NAME",
        help="draw the figures of this gate or cell although it passed; * is any part of a name",
    )
    parser.add_argument("--strict", action="store_true", help="exit 2 if a gate is inconclusive")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    shown.add_argument(
        "--github",
        action="store_true",
        help="print annotations for GitHub Actions instead of the table",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.index:
        page = arguments.directory / "README.md"
        files.write_text(page, index_page(arguments.directory))
        say(f"index: {legible(str(page))}\n")
        return ExitCode.PASS
    return finish(
        arguments.directory,
        strict=arguments.strict,
        as_json=arguments.json,
        for_github=arguments.github,
        earlier=arguments.history,
        output=arguments.output,
        draw=arguments.draw,
    )


def finish(
    directory: Path,
    *,
    strict: bool,
    as_json: bool,
    for_github: bool = False,
    earlier: Sequence[Path] = (),
    output: Path | None = None,
    draw: Sequence[str] = (),
) -> int:
    """Write the report of a run, show its verdicts, return the exit code.

    In a job of GitHub Actions (``GITHUB_STEP_SUMMARY`` is set) the report also becomes the
    job's summary. A reader that closes the pipe early changes nothing in the exit code.
    """
    run, series = _with_history(load_run(directory), earlier)
    _check_names(run, draw)
    pages = write_report(run, output or directory / "report", series, draw)
    code = exit_code(run.deciding, strict=strict)
    if as_json:
        document = verdicts_document(run, code, pages)
        say(json.dumps(document, indent=2, allow_nan=False) + "\n")
    elif for_github:
        say("\n".join(annotation_lines(run)) + "\n")
    else:
        say(_shown(run, pages))
    if os.environ.get(_JOB_SUMMARY):
        _add_summary(Path(os.environ[_JOB_SUMMARY]), run)
    return code


def _check_names(run: RunData, draw: Sequence[str]) -> None:
    names = [*(gate.id for gate in run.gates), *(cell.cell.key for cell in run.cells)]
    for pattern in draw:
        if not any(asked_for(name, [pattern]) for name in names):
            raise ConfigError(
                f"--draw {pattern}: the run has no such gate or cell",
                hint=f"its gates: {', '.join(gate.id for gate in run.gates)}",
            )


def say(text: str) -> None:
    """Print text; nobody reading it is not an error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads; the last flush at exit must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _with_history(run: RunData, earlier: Sequence[Path]) -> tuple[RunData, tuple[GateHistory, ...]]:
    """Read the earlier runs; one that cannot be read is a problem of the report, no more."""
    found: list[RunData] = []
    problems: list[str] = []
    for path in earlier:
        try:
            found.append(load_run(path))
        except HyperboxError as error:
            problems.append(legible(f"earlier run left out: {error.message}"))
    run = replace(run, problems=(*run.problems, *problems))
    return run, history(run, found) if found else ()


def _add_summary(path: Path, run: RunData) -> None:
    """Append to the job's summary, which earlier commands of the step may have begun.

    It may be a pipe or ``/dev/stdout``: never replaced.
    """
    try:
        with path.open("ab") as stream:
            taken = os.fstat(stream.fileno()).st_size
            text = job_summary(run, taken=taken + 1)
            stream.write(("\n" + text if taken else text).encode())
    except OSError as error:
        raise HarnessError(
            f"cannot write the job's summary {path}: {error.strerror or error}",
            hint=f"make it writable or unset {_JOB_SUMMARY}; the report itself is written",
        ) from error
    if not text:
        complain("hyperbox: the job's summary is full: nothing was added")


def _shown(run: RunData, pages: tuple[Path, ...]) -> str:
    console = TerminalConsole()
    with console.capture() as capture:
        console.print(verdict_table(run, console.width))
        console.print(headline_text(run))
    lines = [f"damage: {problem}" for problem in run.problems]
    if lines:
        lines.append(f"hint: restore what is damaged; {_AGAIN} --resume {run.directory}")
    lines.append(f"run directory: {run.directory}")
    lines += [f"report: {page}" for page in pages if page.name == "report.html"]
    return capture.get() + legible("\n".join(lines)) + "\n"
