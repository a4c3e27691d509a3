"""``hyperbox compare``: which kernel, or run, is better at what, by how much, how sure."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.text import Text

from hyperbox import files
from hyperbox.cli.report import say
from hyperbox.console import TerminalConsole
from hyperbox.errors import ExitCode
from hyperbox.harness.report.comparison import compare
from hyperbox.harness.report.comparison_data import SideComparison, comparison_document
from hyperbox.harness.report.comparison_views import comparison_page, comparison_table, has_answer
from hyperbox.harness.runs.loading import load_run
from hyperbox.printing import legible

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "compare",
        help="compare two runs, or two kernels of a run",
        description="Says of every metric which side is better, by how much, and how sure that "
        "is. Two runs are compared kernel by kernel; with --kernels, kernel A (of the first "
        "run) with kernel B (of the second, if one is given).",
    )
    parser.add_argument("first", type=Path, metavar="RUN_A")
    parser.add_argument("second", type=Path, nargs="?", metavar="RUN_B")
    parser.add_argument("--kernels", nargs=2, default=(), metavar=("A", "B"))
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with a figure, too")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    second = load_run(arguments.second) if arguments.second else None
    found = compare(load_run(arguments.first), second, arguments.kernels)
    if arguments.html:
        files.write_text(arguments.html, comparison_page(found))
    if arguments.json:
        say(json.dumps(comparison_document(found), indent=2) + "\n")
    else:
        say(_shown(found))
    return ExitCode.PASS


def _shown(found: SideComparison) -> str:
    console = TerminalConsole()
    with console.capture() as capture:
        # Names and damage are texts of others: no markup of theirs counts.
        console.print(Text(legible(found.sentence), style="bold"))
        console.print()
        if has_answer(found):
            console.print(comparison_table(found, console.width))
            console.print(
                "An interval is each row's own, at 95 %. p is the chance of such a difference by "
                "luck, corrected for all rows: below 0.05 a side is called better.",
                highlight=False,
            )
        for remark in found.remarks:
            console.print(Text(legible(f"note: {remark}"), style="dim"))
    return capture.get()
