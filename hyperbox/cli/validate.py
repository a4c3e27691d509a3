"""``hyperbox validate``: measure, decide, report."""

from __future__ import annotations

import argparse
import contextlib

from hyperbox import config
from hyperbox.cli.report import finish
from hyperbox.harness.runs.progress import ProgressDisplay
from hyperbox.harness.runs.validation import validate

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb; its options are the settings of `hyperbox.config`."""
    parser = verbs.add_parser(
        "validate",
        help="boot kernels, measure, and give a verdict on every gate",
        description="Boots the kernels, measures the experiments of the gates, decides every "
        "gate on every kernel, and writes a run directory with a report.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="GATE_OR_SUITE", help="what to decide; by default everything"
    )
    config.add_options(parser)
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    settings = config.resolve(arguments)
    with contextlib.ExitStack() as stack:
        display = stack.enter_context(ProgressDisplay())
        store = validate(settings, arguments.names, display)
    return finish(store.directory, strict=settings.strict, as_json=arguments.json)
