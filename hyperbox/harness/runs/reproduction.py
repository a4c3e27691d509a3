"""Measuring a run's exact cells again and comparing every sample bit for bit.

In the exact lane the ingredients decide the numbers: QEMU's build, kernel, images, the
project's code and the seed. So equal ingredients and other numbers are a defect, of the
machine or of hyperbox; other ingredients make the comparison void, and are named.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.harness.lab.kernel_kit import KernelKit, kernel_kit
from hyperbox.harness.lab.machine import Laboratory
from hyperbox.harness.lab.point_releases import is_point_release
from hyperbox.harness.lab.vm_laboratory import LaneChoice, VmLaboratory
from hyperbox.harness.model import Cell, Lane, Sample
from hyperbox.harness.runs.attempt import Attempt, AttemptState, measure
from hyperbox.harness.runs.engine import drain
from hyperbox.harness.runs.events import (
    AttemptRecorded,
    BlockMeasured,
    CellStarted,
    Event,
    Listener,
)
from hyperbox.harness.runs.ingredients import differing_ingredients, fact
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.record import Record
from hyperbox.harness.runs.store import RunInfo, RunStore

__all__ = ["Comparison", "Finding", "exact_cells", "judge", "reproduce"]


class Finding(StrEnum):
    """What measuring a cell again showed."""

    IDENTICAL = "identical"
    DIFFERENT = "different"
    """Other numbers from equal ingredients."""
    INCOMPARABLE = "incomparable"
    """Other ingredients; the numbers may or may not be equal."""
    BROKEN = "broken"
    """It could not be measured again."""


@dataclass(frozen=True)
class Comparison:
    """A cell measured again.

    `samples` counts those on record, `equal` those that came out the same to the last bit.
    `differences` are the first few, as text; `ingredients` the names of those that differ.
    """

    cell: Cell
    finding: Finding
    samples: int
    equal: int
    differences: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()
    reason: str = ""


def exact_cells(
    store: RunStore, plan: Plan, keys: Sequence[str] = ()
) -> Iterator[tuple[Cell, Record]]:
    """Return the measured exact cells of a run, or those with the keys.

    Raises
    ------
    ConfigError
        If a key is not a measured exact cell of the run, or the run has none at all.
    """
    found = {}
    for cell in plan.cells():
        record = store.latest(cell)
        if cell.lane is Lane.EXACT and record is not None and record.state is AttemptState.MEASURED:
            found[cell.key] = (cell, record)
    unknown = [key for key in keys if key not in found]
    if unknown:
        raise ConfigError(
            f"{unknown[0]!r} is not a measured exact cell of {store.directory}",
            hint=f"cells: {', '.join(found) or 'none'}",
        )
    if not found:
        raise ConfigError(
            f"{store.directory} has no measured cell of the exact lane",
            hint="only exact time can be repeated; compare others with `hyperbox compare`",
        )
    yield from (found[key] for key in keys or found)


def reproduce(
    store: RunStore,
    keys: Sequence[str],
    *,
    jobs: int,
    step: Callable[[str, float], None],
    listen: Listener,
) -> Iterator[Comparison]:
    """Measure exact cells of a run again and compare, as they come; the run is not changed.

    Raises
    ------
    ConfigError
        If there is nothing that can be compared.
    HarnessError
        If a kernel cannot be had.
    """
    info = store.info()
    todo = tuple(exact_cells(store, info.plan, keys))
    kits = _kits(info, todo, step)
    lane = LaneChoice(Lane.EXACT, "the run's")
    with (
        # A kept snapshot may be the one that the run was measured from: it would prove itself.
        contextlib.closing(VmLaboratory(kits, lane=lane, kept=False, progress=step)) as laboratory,
        concurrent.futures.ThreadPoolExecutor(jobs, thread_name_prefix="cell") as executor,
    ):
        cancelled = threading.Event()

        def notify(event: Event) -> None:
            if not cancelled.is_set():  # its machine was killed under it
                listen(event)

        futures = [
            executor.submit(_again, laboratory, info.plan, cell, record, notify)
            for cell, record in todo
        ]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BaseException:
            cancelled.set()
            drain(futures, end_machines=True)
            raise


def judge(cell: Cell, record: Record, attempt: Attempt) -> Comparison:
    """Compare an attempt with the one on record; pure but for reading the samples."""
    try:
        known = record.samples()
    except HarnessError as error:
        return Comparison(cell, Finding.BROKEN, 0, 0, reason=error.message)
    if attempt.state is not AttemptState.MEASURED:
        reason = f"{attempt.state}: {attempt.reason}"
        return Comparison(cell, Finding.BROKEN, len(known), 0, reason=reason)
    again = {_place(sample): sample.value for sample in attempt.samples}
    different = [sample for sample in known if again.get(_place(sample)) != sample.value]
    equal = len(known) - len(different)
    others = differing_ingredients(record.document["environment"], attempt.environment)
    finding = Finding.DIFFERENT
    if not different and len(again) == len(known) > 0:
        finding = Finding.IDENTICAL
    if others:
        finding = Finding.INCOMPARABLE
    shown = tuple(
        f"block {sample.block} {sample.arm} {sample.metric}: "
        f"{sample.value!r}, now {again.get(_place(sample))!r}"
        for sample in different[:5]
    )
    return Comparison(cell, finding, len(known), equal, shown, others)


def _again(
    laboratory: Laboratory, plan: Plan, cell: Cell, record: Record, listen: Listener
) -> Comparison:
    blocks = len(record.document["blocks"])
    experiment = replace(plan.experiment(cell.experiment), blocks=blocks)
    listen(CellStarted(cell, 1, blocks))
    attempt = measure(
        laboratory,
        cell,
        experiment,
        (),
        seed=plan.seed,
        on_block=lambda done: listen(BlockMeasured(cell, done, blocks)),
    )
    found = judge(cell, record, attempt)
    listen(AttemptRecorded(cell, attempt.state, attempt.reason, True))
    return found


def _kits(
    info: RunInfo, todo: Sequence[tuple[Cell, Record]], step: Callable[[str, float], None]
) -> tuple[KernelKit, ...]:
    """Return the very kernels that were measured, or the nearest that can still be had."""
    asked = dict(zip(info.plan.kernels, info.document["asked"]["kernels"], strict=False))
    modules = info.document["asked"]["modules"]
    kits: dict[str, KernelKit] = {}
    for cell, record in todo:
        if cell.kernel in kits:
            continue
        selector = str(asked.get(cell.kernel, cell.kernel))
        own = Path(modules) if modules and os.sep in selector else None
        kit = kernel_kit(selector, modules=own, progress=step)
        version = fact(record.document["environment"], ("kernel", "version"))
        if kit.version != version and is_point_release(str(version)):
            with contextlib.suppress(ConfigError, HarnessError):  # it has left the mirror
                kit = kernel_kit(str(version), progress=step)
        kits[cell.kernel] = replace(kit, label=cell.kernel)
    return tuple(kits.values())


def _place(sample: Sample) -> tuple[int, str, str]:
    return (sample.block, sample.arm, sample.metric)
