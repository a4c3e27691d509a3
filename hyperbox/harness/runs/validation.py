"""One validation from settings to a complete run directory.

Everything that can be refused is refused before anything is fetched or written.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from hyperbox.config import Settings
from hyperbox.errors import ConfigError, HarnessError, HyperboxError
from hyperbox.harness.declarations import load_suites
from hyperbox.harness.lab.capacity import cells_at_once, free_memory
from hyperbox.harness.lab.host import HOST, HostLaboratory, check_unchanged, host_facts
from hyperbox.harness.lab.kernel_kit import KernelKit
from hyperbox.harness.lab.kernel_selectors import chosen_kernels, expand_kernels
from hyperbox.harness.lab.layers import layer_image, named_layers
from hyperbox.harness.lab.machine import Laboratory
from hyperbox.harness.lab.qemu import MEBIBYTE, find_qemu
from hyperbox.harness.lab.vm_laboratory import LaneChoice, VmLaboratory, choose_lane
from hyperbox.harness.model import Lane, Suite
from hyperbox.harness.runs.costs import CostBook
from hyperbox.harness.runs.documents import utc
from hyperbox.harness.runs.engine import run_plan, unfinished
from hyperbox.harness.runs.events import Event
from hyperbox.harness.runs.forecast import Forecast, expect, longest_first
from hyperbox.harness.runs.ingredients import check_unchanged_since
from hyperbox.harness.runs.plan import Plan, make_plan, select
from hyperbox.harness.runs.resumption import resume_command, resumed_info
from hyperbox.harness.runs.store import RunStore
from hyperbox.harness.runs.versions import versions
from hyperbox.paths import cache_directory

__all__ = ["ProgressListener", "jobs_for", "plan_for", "suites_for", "validate"]

_CACHE_NEED = 2 << 30
_MEMORY_NEED = 1 << 30


class ProgressListener(Protocol):
    """Who is notified of what happens; `hyperbox.harness.runs.progress.ProgressDisplay` is one."""

    def expect(self, plan: Plan, forecast: Forecast | None = None) -> None:
        """Take note of the whole amount of work, and what keeps an account of the time it takes."""
        ...

    def step(self, text: str, fraction: float) -> None:
        """Take note of a step of fetching, building or booting."""
        ...

    def __call__(self, event: Event) -> None:
        """Take note of an event of a cell."""
        ...


@dataclass(frozen=True)
class _Job:
    """A plan, and how its kernels were asked for."""

    plan: Plan
    target: str
    selectors: tuple[str, ...]
    modules: Path | None
    allow_host_changes: bool
    suites: Path | None
    lane: LaneChoice
    kits: tuple[KernelKit, ...] = ()


def validate(settings: Settings, names: Sequence[str], listening: ProgressListener) -> RunStore:
    """Run a validation, or go on with one, and give its run directory.

    Raises
    ------
    ConfigError
        For unknown names and settings that contradict each other.
    HarnessError
        If kernels cannot be had, space is missing, or records cannot be written. The run
        directory, if there is one by then, can be resumed.
    KeyboardInterrupt
        After everything was stopped and tidied.
    """
    if settings.resume is not None:
        store = RunStore.open(settings.resume)
        job = _resumed(settings, store, names)
        _check_host(job.target)
    else:
        job = _planned(settings, names, listening)
        store = _created(settings, job, names)
    with store.exclusive():
        if settings.resume is not None and unfinished(job.plan, store):
            job = _as_begun(job, store, listening)
        with _status(store):
            if unfinished(job.plan, store):
                _measure_cells(job, store, settings, listening)
            else:
                listening.expect(job.plan)
    return store


def _planned(settings: Settings, names: Sequence[str], listening: ProgressListener) -> _Job:
    _check_host(settings.target)
    suites = suites_for(settings, names)
    selectors: tuple[str, ...] = (HOST,)
    kits: tuple[KernelKit, ...] = ()
    lane = LaneChoice(Lane.HOST, "asked for")
    beside: tuple[Lane, ...] = ()
    if settings.target == "vm":
        selectors = expand_kernels(settings.kernel, settings.modules)
        find_qemu()
        _check_space(settings)
        chosen = chosen_kernels(selectors, settings.modules, listening.step)
        selectors = tuple(one.selector for one in chosen)
        kits = tuple(one.kit for one in chosen)
        lane = choose_lane(settings.lane, kits)
        if settings.beside != "none":
            beside = (choose_lane(settings.beside, kits).lane,)
    labels = [kit.label for kit in kits] or [HOST]
    return _Job(
        plan_for(settings, names, suites, labels, (lane.lane, *beside)),
        settings.target,
        selectors,
        settings.modules,
        settings.allow_host_changes,
        settings.suites,
        lane,
        kits,
    )


def suites_for(settings: Settings, names: Sequence[str]) -> tuple[Suite, ...]:
    """Return the suites that settings ask for; ConfigError unless they have what is named."""
    if settings.suites is not None and settings.target != "host":
        raise ConfigError(
            "--suites works with --target host only: guests see the project's suites",
            hint="put the suite into the project's suites/ directory",
        )
    suites = load_suites(settings.suites)
    select(suites, names)
    return suites


def plan_for(
    settings: Settings,
    names: Sequence[str],
    suites: Sequence[Suite],
    kernels: Sequence[str],
    lanes: Sequence[Lane],
) -> Plan:
    """Plan what settings and names ask for; the first lane decides."""
    return make_plan(
        suites,
        names=names,
        kernels=kernels,
        lane=lanes[0],
        seed=settings.seed,
        blocks=settings.blocks,
        beside=lanes[1:],
    )


def _resumed(settings: Settings, store: RunStore, names: Sequence[str]) -> _Job:
    info = resumed_info(settings, store, names)
    asked = info.document["asked"]
    return _Job(
        info.plan,
        info.document["target"],
        tuple(asked["kernels"]),
        Path(asked["modules"]) if asked["modules"] else None,
        settings.allow_host_changes,
        settings.suites,
        LaneChoice(info.plan.lane, "the interrupted run's"),
    )


def _as_begun(job: _Job, store: RunStore, listening: ProgressListener) -> _Job:
    """Return a resumed job with its kernels; ConfigError if the rest would be of other builds."""
    if job.target == "vm":
        chosen = chosen_kernels(job.selectors, job.modules, listening.step)
        found = [one.kit.label for one in chosen]
        if found != list(job.plan.kernels):
            raise ConfigError(
                f"the run was planned for kernels {', '.join(job.plan.kernels)}, "
                f"now found: {', '.join(found)}",
                hint="restore them, or start a new run",
            )
        job = replace(job, kits=tuple(one.kit for one in chosen))
    with contextlib.closing(_laboratory(job, listening)) as laboratory:
        check_unchanged_since(job.plan, store, laboratory)
    return job


def _created(settings: Settings, job: _Job, names: Sequence[str]) -> RunStore:
    directory = settings.run_directory or Path("runs") / utc().replace(":", "").replace("-", "")
    return RunStore.create(
        directory,
        job.plan,
        target=job.target,
        asked={
            "names": list(names),
            "blocks": settings.blocks,
            "kernels": list(job.selectors),
            "modules": os.fspath(job.modules) if job.modules else None,
            "allow_host_changes": job.allow_host_changes,
            "suites": os.fspath(job.suites.resolve()) if job.suites else None,
        },
        versions=versions(),
        environment={"host": host_facts()},
    )


def _measure_cells(
    job: _Job, store: RunStore, settings: Settings, listening: ProgressListener
) -> None:
    jobs, remark = jobs_for(settings, job.plan, job.target)
    if remark:
        listening.step(remark, 0.0)
    book = CostBook()
    expected = expect(job.plan, book.of(job.plan.cells()))
    order = longest_first(job.plan, unfinished(job.plan, store), expected)
    listening.expect(job.plan, Forecast([expected[cell] for cell in order], jobs))
    with (
        contextlib.closing(_laboratory(job, listening)) as laboratory,
        concurrent.futures.ThreadPoolExecutor(jobs, thread_name_prefix="cell") as executor,
    ):
        run_plan(job.plan, laboratory, store, executor, listen=listening, costs=book)


def jobs_for(settings: Settings, plan: Plan, target: str) -> tuple[int, str]:
    """Return how many cells are measured at once, and why fewer than asked for, if so.

    Any cells may meet: each counts as the largest.
    """
    processors = len(os.sched_getaffinity(0))
    if target == "host":
        return settings.jobs or processors, ""
    machines = [experiment.machine for experiment in plan.experiments]
    widest = max(machine.processors for machine in machines)
    wanted = settings.jobs or max(1, processors // widest)
    largest = max(machine.memory_mib for machine in machines) * MEBIBYTE
    jobs = cells_at_once(wanted, largest, free_memory())
    cells = "1 cell" if jobs == 1 else f"{jobs} cells"
    return jobs, f"{cells} at once, not {wanted}: memory carries no more" if jobs < wanted else ""


def _laboratory(job: _Job, listening: ProgressListener) -> Laboratory:
    if job.target == "host":
        project = job.suites.resolve().parent if job.suites else None
        return HostLaboratory(allow_changes=job.allow_host_changes, project=project)
    for name in named_layers(name for one in job.plan.experiments for name in one.layers):
        layer_image(name, listening.step)  # before cells need it, and wait for one another
    return VmLaboratory(job.kits, lane=job.lane, progress=listening.step)


@contextlib.contextmanager
def _status(store: RunStore) -> Iterator[None]:
    """Keep ``run.json``'s status true, however the block ends."""
    info = store.info()
    if info.status != "running":
        store.set_status("running")
    again = f"go on with: {resume_command(store, info)}"
    try:
        yield
    except KeyboardInterrupt:
        _end(store, "interrupted")
        raise KeyboardInterrupt(again) from None
    except HyperboxError as error:
        _end(store, "failed")
        error.hint = f"{error.hint}; {again}" if error.hint else again
        raise
    except BaseException:
        _end(store, "failed")
        raise
    store.set_status("complete")


def _end(store: RunStore, status: str) -> None:
    """Note how the run ended, if it can be noted: the disk may be full."""
    with contextlib.suppress(HyperboxError):
        store.set_status(status)


def _check_host(target: str) -> None:
    if target == "host":
        check_unchanged()


def _check_space(settings: Settings) -> None:
    cache = cache_directory()
    _need(_existing(cache), _CACHE_NEED, f"the cache {cache}", "set HYPERBOX_CACHE elsewhere")
    if free_memory() < _MEMORY_NEED:
        raise HarnessError(
            f"a guest needs {_MEMORY_NEED >> 20} MiB of memory, {free_memory() >> 20} MiB are free",
            hint="end what else runs here",
        )


def _need(directory: Path, wanted: int, name: str, hint: str) -> None:
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise HarnessError(f"cannot use {directory}: {error.strerror or error}") from error
    if free < wanted:
        raise HarnessError(
            f"{name} needs {wanted >> 20} MiB free and has {free >> 20} MiB", hint=hint
        )


def _existing(path: Path) -> Path:
    """Return the path or its nearest ancestor that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
