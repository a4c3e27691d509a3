"""``hyperbox merge``: shards of one plan, measured on several machines, become one run."""

from __future__ import annotations

import argparse
from pathlib import Path

from hyperbox.cli.report import finish
from hyperbox.harness.runs.merging import merge

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "merge",
        help="join runs of one plan that were measured on several machines",
        description="Joins runs with the same experiments, gates, lane and seed into a new run "
        "directory, reports it, and exits as that run. A cell that two of them measured is "
        "taken if its records are identical, else refused. Runs that were cut off become a "
        "complete one if together they measured every cell.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="the new run directory"
    )
    parser.add_argument("--strict", action="store_true", help="exit 2 if a gate is inconclusive")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    merge(arguments.runs, arguments.output)
    return finish(arguments.output, strict=arguments.strict, as_json=arguments.json)
