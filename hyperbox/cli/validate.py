"""``hyperbox validate``: measure, decide, report."""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import Any

from rich.table import Table
from rich.text import Text

from hyperbox.cli.report import finish
from hyperbox.config import VALIDATE
from hyperbox.console import TerminalConsole
from hyperbox.errors import ExitCode
from hyperbox.harness.model import Cell
from hyperbox.harness.runs.dry_run import DryRun, dry_run
from hyperbox.harness.runs.forecast import spell
from hyperbox.harness.runs.progress import ProgressDisplay
from hyperbox.harness.runs.validation import validate
from hyperbox.settings import add_config

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb; its options are the settings of `hyperbox.config`."""
    parser = verbs.add_parser(
        "validate",
        help="boot kernels, measure, and decide every gate",
        description="Boots the kernels, measures the experiments of the gates, decides every "
        "gate on every kernel, and writes a run directory with a report.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="GATE_OR_SUITE", help="what to decide; by default everything"
    )
    add_config(parser)
    VALIDATE.add_options(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be measured and what it takes, as far as earlier runs on this "
        "machine show; nothing is fetched, booted or written",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the verdicts, or the plan, as JSON"
    )
    parser.set_defaults(run=_validate)


def _validate(arguments: argparse.Namespace) -> int:
    settings = VALIDATE.resolve(arguments)
    if arguments.dry_run:
        found = dry_run(settings, arguments.names)
        if arguments.json:
            print(json.dumps(_document(found), indent=2))
        else:
            _show(found)
        return ExitCode.PASS
    with contextlib.ExitStack() as stack:
        display = stack.enter_context(ProgressDisplay())
        store = validate(settings, arguments.names, display)
    return finish(store.directory, strict=settings.strict, as_json=arguments.json)


def _document(found: DryRun) -> dict[str, Any]:
    total = found.total()
    nothing = bool(found.order) and total.unknown == len(found.order)
    return {
        "lane": found.plan.lane,
        "beside": list(found.plan.beside),
        "seed": found.plan.seed,
        "jobs": found.jobs,
        "cells": [_cell_document(found, cell) for cell in found.order],
        "recorded": [cell.key for cell in found.recorded],
        "seconds": None if nothing else round(total.seconds, 1),
        "cpu_seconds": None if nothing else round(found.cpu_seconds(), 1),
        "unknown_cells": total.unknown,
        "remarks": list(found.remarks),
    }


def _cell_document(found: DryRun, cell: Cell) -> dict[str, Any]:
    experiment, one = found.plan.experiment(cell.experiment), found.expected[cell]
    return {
        "key": cell.key,
        "kernel": cell.kernel,
        "experiment": cell.experiment,
        "lane": cell.lane,
        "arms": [arm.id for arm in experiment.arms],
        "gates": [gate.id for gate in found.plan.gates_of(cell.experiment)],
        "blocks": experiment.blocks,
        "expected_blocks": one.blocks if one.basis else None,
        "seconds": None if one.seconds is None else round(one.seconds, 1),
        "cpu_seconds": None if one.cpu_seconds is None else round(one.cpu_seconds, 1),
        "basis": one.basis or None,
        "limit_s": experiment.limit,
    }


def _show(found: DryRun) -> None:
    console, table = TerminalConsole(), Table(box=None, pad_edge=False)
    for title in (
        "experiment",
        "kernel",
        "lane",
        "arms",
        "blocks",
        "time",
        "CPU time",
        "known from",
    ):
        numeric = title in ("arms", "blocks", "time", "CPU time")
        table.add_column(title, justify="right" if numeric else "left", overflow="fold")
    for cell in found.order:
        experiment, one = found.plan.experiment(cell.experiment), found.expected[cell]
        fewer = f"{one.blocks} of " if one.blocks < experiment.blocks else ""
        words = (
            cell.experiment,
            cell.kernel,
            cell.lane,
            str(len(experiment.arms)),
            f"{fewer}{experiment.blocks}",
            _spell(one.seconds),
            _spell(one.cpu_seconds),
            one.basis,
        )
        table.add_row(*(Text(word) for word in words))
    console.print(table)
    for line in (_summary(found), *found.remarks):
        console.print(line, highlight=False, soft_wrap=True)


def _spell(seconds: float | None) -> str:
    return "unknown" if seconds is None else spell(seconds)


def _summary(found: DryRun) -> str:
    total, count = found.total(), len(found.order)
    said = "1 cell" if count == 1 else f"{count} cells"
    if found.recorded:
        said += f" to measure, {len(found.recorded)} on record"
    if not count:
        return f"{said}: nothing is left to do"
    if total.unknown == count:
        return f"{said}, {found.jobs} at once: nothing is known of the time they take"
    unknown = f"; nothing is known of {total.unknown}" if total.unknown else ""
    cpu = spell(found.cpu_seconds())
    return f"{said}, {found.jobs} at once: {total}, {cpu} of CPU time{unknown}"
