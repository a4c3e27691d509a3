"""``hyperbox report``: make the report of a run directory again, and show its verdicts."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.page import write_report
from hyperbox.harness.report.tables import headline_text, verdict_table
from hyperbox.harness.runs.loading import load_run
from hyperbox.harness.verdicts.gates import exit_code

__all__ = ["add_parser", "finish", "verdict_document"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "report",
        help="make the report of a run again",
        description="Decides the gates of a run directory from its records, writes the report "
        "into it, and exits as the run did.",
    )
    parser.add_argument("directory", type=Path, metavar="RUN_DIRECTORY")
    parser.add_argument("--strict", action="store_true", help="exit 2 if a gate is inconclusive")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    parser.set_defaults(
        run=lambda arguments: finish(
            arguments.directory, strict=arguments.strict, as_json=arguments.json
        )
    )


def finish(directory: Path, *, strict: bool, as_json: bool) -> int:
    """Write the report of a run, show its verdicts, give the exit code.

    A reader that closes the pipe early changes nothing in the exit code.
    """
    run = load_run(directory)
    pages = write_report(run, directory / "report")
    code = exit_code(run.verdicts, strict=strict)
    if as_json:
        _say(json.dumps(verdict_document(run, code, pages), indent=2) + "\n")
    else:
        _say(_shown(run, pages))
    return code


def verdict_document(run: RunData, code: int, pages: tuple[Path, ...]) -> dict[str, object]:
    """Give verdicts, exit code and places as JSON data."""
    return {
        "run": run.run_id,
        "directory": str(run.directory),
        "exit_code": int(code),
        "verdicts": [asdict(verdict) for verdict in run.verdicts],
        "report": [str(page) for page in pages],
    }


def _shown(run: RunData, pages: tuple[Path, ...]) -> str:
    console = Console()
    with console.capture() as capture:
        console.print(verdict_table(run))
        console.print(headline_text(run))
    lines = [f"run directory: {run.directory}"]
    lines += [f"report: {page}" for page in pages if page.suffix == ".html"]
    return capture.get() + "\n".join(lines) + "\n"


def _say(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads; the last flush at exit must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
