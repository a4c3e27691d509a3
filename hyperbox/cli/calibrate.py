"""``hyperbox calibrate``: how often verdicts err, against what is promised."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from hyperbox.console import TerminalConsole
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.harness.calibration.answers import ALARMS, PLANTED, KnownCell
from hyperbox.harness.calibration.evidence import Evidence, evidence_of
from hyperbox.harness.calibration.findings import Calibration, RuleRates
from hyperbox.harness.calibration.grid import FULL, QUICK, Size, scenarios
from hyperbox.harness.calibration.simulation import calibrate, row_at
from hyperbox.harness.report.calibration import calibration_table, write_calibration
from hyperbox.harness.report.calibration_runs import planted_table, summary
from hyperbox.harness.runs.loading import load_run
from hyperbox.printing import legible

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "calibrate",
        help="measure how often verdicts err",
        description="Puts simulated measurements with known answers through the code that "
        "decides gates: every rule under normal, heavy-tailed, skewed, spiky, bimodal, "
        "autocorrelated and drifting noise. Exits with 1 if the bound of a wrong PASS or FAIL "
        "exceeds 2.5 % where it is promised.",
    )
    parser.add_argument("--quick", action="store_true", help="a reduced grid, for CI")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument(
        "--run",
        type=Path,
        action="append",
        default=[],
        dest="runs",
        metavar="RUN_DIRECTORY",
        help=f"add the gates {ALARMS}* and {PLANTED}* of a run; may be repeated",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIRECTORY",
        help="write calibration.json and calibration.html there",
    )
    parser.add_argument("--json", action="store_true", help="print calibration.json")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.jobs < 1:
        raise ConfigError(f"--jobs must be 1 or more, not {arguments.jobs}")
    if arguments.seed < 0:
        raise ConfigError(f"--seed must be 0 or more, not {arguments.seed}")
    evidence = [_evidence(directory) for directory in arguments.runs]
    size = QUICK if arguments.quick else FULL
    rows = _with_progress(_rows(size, arguments.seed, arguments.jobs))
    found = calibrate(rows, size, arguments.seed, evidence)
    pages = write_calibration(found, arguments.out) if arguments.out else ()
    if arguments.json:
        sys.stdout.write(json.dumps(found.document(), indent=2, allow_nan=False) + "\n")
    else:
        _show(found, pages)
    return ExitCode.GATE_FAILED if found.broken_promises else ExitCode.PASS


def _evidence(directory: Path) -> Evidence:
    run = load_run(directory)
    if not any(gate.id.startswith((ALARMS, PLANTED)) for gate in run.gates):
        raise ConfigError(
            f"{directory} has no gate with a known answer",
            hint=f"such gates begin with {ALARMS} or {PLANTED}; run the suite harness",
        )
    measured = [KnownCell(cell.cell, cell.experiment, cell.samples) for cell in run.cells]
    return evidence_of(run.run_id, run.gates, run.verdicts, measured)


def _rows(size: Size, seed: int, jobs: int) -> Iterator[tuple[RuleRates, int]]:
    """Return the rows in the order of the grid, as they come."""
    places = range(len(tuple(scenarios())))
    if jobs == 1:
        yield from (row_at(place, size, seed) for place in places)
        return
    workers = min(jobs, os.cpu_count() or 1)
    # Fresh processes: a fork would copy the threads of numpy's libraries half.
    with ProcessPoolExecutor(workers, get_context("spawn"), _ignore_interrupts) as executor:
        futures = [executor.submit(row_at, place, size, seed) for place in places]
        try:
            yield from (future.result() for future in futures)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent, which cancels what has not begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _with_progress(rows: Iterator[tuple[RuleRates, int]]) -> Iterator[tuple[RuleRates, int]]:
    console = TerminalConsole(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("calibrating", total=len(tuple(scenarios())))
        for found in rows:
            progress.update(task, advance=1, description=f"{found[0].rule}, {found[0].noise} noise")
            yield found


def _show(found: Calibration, pages: tuple[Path, ...]) -> None:
    console = TerminalConsole()
    with console.capture() as capture:
        console.print(calibration_table(found))
        for seen in found.evidence:
            if seen.planted:
                console.print(planted_table(seen))
    lines = [summary(seen) for seen in found.evidence]
    lines += [f"written: {page}" for page in pages]
    lines += [f"exceeds the promise: {name}" for name in found.broken_promises]
    if not found.broken_promises:
        lines.append("every promised bound is kept")
    sys.stdout.write(capture.get() + legible("\n".join(lines)) + "\n")
