"""``hyperbox reproduce``: measure a run's exact cells again, compare bit for bit."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from hyperbox.console import TerminalConsole
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.harness.runs.progress import ProgressDisplay
from hyperbox.harness.runs.reproduction import Comparison, Finding, exact_cells, reproduce
from hyperbox.harness.runs.store import RunStore

__all__ = ["add_parser"]

_EPILOG = """\
Time of the exact lane counts instructions, so equal ingredients (QEMU's build, kernel, guest
images, hyperbox's code, seed) give equal numbers, on any machine, however busy.

exit status: 0 every sample is identical; 1 samples differ although the ingredients do not;
2 ingredients differ (they are named), so the numbers say nothing; 3 something could not be
measured

examples:
  hyperbox reproduce runs/20261125T094602.136Z
  hyperbox reproduce reports/psi --cell 6.12--psi.accuracy--exact
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "reproduce",
        help="measure a run's exact cells again and compare every sample bit for bit",
        description="Measures the exact cells of a run again, on this machine, and compares "
        "every sample bit for bit. The run is not changed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_directory", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument(
        "--cell", action="append", default=[], metavar="KEY", help="only this cell; repeatable"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="cells at once; by default one per processor"
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.jobs is not None and arguments.jobs < 1:
        raise ConfigError(f"--jobs must be a whole number from 1 up, not {arguments.jobs}")
    store = RunStore.open(arguments.run_directory)
    plan = store.info().plan
    order = [cell.key for cell, _ in exact_cells(store, plan, arguments.cell)]
    jobs = arguments.jobs or len(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        display = stack.enter_context(ProgressDisplay())
        display.expect(plan)
        found = list(reproduce(store, arguments.cell, jobs=jobs, step=display.step, listen=display))
    found.sort(key=lambda one: order.index(one.cell.key))
    if arguments.json:
        print(json.dumps({"cells": [_document(one) for one in found]}, indent=2))
    else:
        _show(found)
    return _code(found)


def _document(one: Comparison) -> dict[str, object]:
    return {"key": one.cell.key, **asdict(one)}


def _code(found: list[Comparison]) -> ExitCode:
    findings = {one.finding for one in found}
    if Finding.BROKEN in findings:
        return ExitCode.HARNESS_ERROR
    if Finding.DIFFERENT in findings:
        return ExitCode.GATE_FAILED
    return ExitCode.INCONCLUSIVE if Finding.INCOMPARABLE in findings else ExitCode.PASS


def _show(found: list[Comparison]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("cell", "finding", "equal samples", "why"):
        table.add_column(title, overflow="fold")
    for one in found:
        others = f"differs: {', '.join(one.ingredients)}" if one.ingredients else ""
        why = "; ".join(text for text in (one.reason, others, *one.differences[:2]) if text)
        table.add_row(one.cell.key, one.finding, f"{one.equal} of {one.samples}", why)
    console = TerminalConsole()
    console.print(table)
    samples, equal = sum(one.samples for one in found), sum(one.equal for one in found)
    console.print(f"{equal} of {samples} samples are the same to the last bit.")
