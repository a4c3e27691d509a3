"""Runs a plan's cells on any `concurrent.futures.Executor`, and records each attempt.

Workers write the records themselves: what is on disk is done, whoever asks again. With a
thread pool events are reported and an interruption ends the machines at once; other
executors (processes, Dask) need a laboratory that can be pickled.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperbox.harness.lab.machine import Laboratory
from hyperbox.harness.model import Cell, Experiment, Gate
from hyperbox.harness.runs.attempt import measure
from hyperbox.harness.runs.costs import CostBook, cost_of
from hyperbox.harness.runs.events import (
    AttemptRecorded,
    BlockMeasured,
    CellResumed,
    CellStarted,
    Listener,
)
from hyperbox.harness.runs.forecast import expect, longest_first
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.store import RunStore
from hyperbox.processes import end_started

__all__ = ["ATTEMPTS", "drain", "run_plan", "unfinished"]

ATTEMPTS = 2
"""How often a cell is tried when its machine fails."""


def unfinished(plan: Plan, store: RunStore) -> tuple[Cell, ...]:
    """Return the cells that have no measured or skipped attempt on record."""
    latest = [(cell, store.latest(cell)) for cell in plan.cells()]
    return tuple(cell for cell, record in latest if record is None or not record.finished)


def run_plan(
    plan: Plan,
    laboratory: Laboratory,
    store: RunStore,
    executor: concurrent.futures.Executor,
    *,
    listen: Listener | None = None,
    costs: CostBook | None = None,
) -> None:
    """Measure every unfinished cell of a plan, those first that `costs` expects to take longest.

    A cell that fails is a record, not an error. What cells cost is kept in `costs`.

    Raises
    ------
    HarnessError
        If a record cannot be written (disk full): the other cells are stopped, what is on
        record stays, and the run can be resumed.
    KeyboardInterrupt
        After the running machines were ended.
    """
    notify = listen or (lambda _event: None)
    todo = unfinished(plan, store)
    for cell in plan.cells():
        if cell not in todo:
            notify(CellResumed(cell))
    expected = expect(plan, costs.of(plan.cells()) if costs is not None else {})
    local = isinstance(executor, concurrent.futures.ThreadPoolExecutor)
    cancelled = threading.Event() if local else None
    futures: list[concurrent.futures.Future[None]] = []
    try:
        for cell in longest_first(plan, todo, expected):
            experiment = plan.experiment(cell.experiment)
            order = _Order(
                cell, experiment, plan.gates_of(experiment.id), plan.seed, plan.family, costs
            )
            arguments = (notify, cancelled) if local else (None, None)
            futures.append(executor.submit(_work, order, laboratory, store.directory, *arguments))
        for future in concurrent.futures.as_completed(futures):
            future.result()
    except BaseException:
        if cancelled is not None:
            cancelled.set()
        drain(futures, end_machines=local)
        raise


@dataclass(frozen=True)
class _Order:
    """What a worker needs to know of a cell."""

    cell: Cell
    experiment: Experiment
    gates: Sequence[Gate]
    seed: int
    family: int
    costs: CostBook | None


def _work(
    order: _Order,
    laboratory: Laboratory,
    directory: Path,
    listen: Listener | None,
    cancelled: threading.Event | None,
) -> None:
    """Try a cell until it is measured or skipped, or its machine has failed too often."""
    store = RunStore(directory)
    notify = listen or (lambda _event: None)
    cell, blocks = order.cell, order.experiment.blocks
    for number in range(1, ATTEMPTS + 1):
        if cancelled is not None and cancelled.is_set():
            return
        notify(CellStarted(cell, number, blocks))
        attempt = measure(
            laboratory,
            cell,
            order.experiment,
            order.gates,
            seed=order.seed,
            family=order.family,
            on_block=lambda done: notify(BlockMeasured(cell, done, blocks)),
        )
        if cancelled is not None and cancelled.is_set():
            return  # its machine was killed under it: not evidence of anything
        record = store.record(cell, attempt, order.experiment)
        if order.costs is not None:
            order.costs.keep(cell, cost_of(attempt, order.experiment))
        final = not attempt.retry or number == ATTEMPTS
        notify(AttemptRecorded(cell, record.state, attempt.reason, final))
        if final:
            return


def drain(futures: Sequence[concurrent.futures.Future[Any]], *, end_machines: bool) -> None:
    """Cancel what waits, end what runs, and wait until every worker has tidied up."""
    for future in futures:
        future.cancel()
    waiting = {future for future in futures if not future.done()}
    while waiting:
        if end_machines:
            end_started()  # workers meet a lost machine and leave their context managers
        _, waiting = concurrent.futures.wait(waiting, timeout=0.2)
