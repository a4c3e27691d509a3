"""What a validation would measure and take, found out without fetching or booting anything."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.config import Settings
from hyperbox.errors import ConfigError
from hyperbox.harness.lab.host import HOST
from hyperbox.harness.lab.kernel_selectors import expand_kernels, foreseen_labels
from hyperbox.harness.model import Cell, Lane
from hyperbox.harness.runs.costs import CostBook
from hyperbox.harness.runs.engine import unfinished
from hyperbox.harness.runs.forecast import Expectation, Left, expect, longest_first, makespan
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.resumption import resumed_info
from hyperbox.harness.runs.store import RunStore
from hyperbox.harness.runs.validation import jobs_for, plan_for, suites_for

__all__ = ["DryRun", "dry_run"]

_KVM = Path("/dev/kvm")


@dataclass(frozen=True)
class DryRun:
    """A plan, the cells to be measured in the order in which they begin, and their price.

    `recorded` are the cells that a resumed run leaves alone. `remarks` say what only the run
    itself can find out.
    """

    plan: Plan
    jobs: int
    order: tuple[Cell, ...]
    recorded: tuple[Cell, ...]
    expected: Mapping[Cell, Expectation]
    remarks: tuple[str, ...] = ()

    def total(self) -> Left:
        """Return the seconds by the host's clock for all that is known, and what is not."""
        found = [self.expected[cell].seconds for cell in self.order]
        known = [seconds for seconds in found if seconds is not None]
        return Left(makespan((), known, self.jobs), len(found) - len(known))

    def cpu_seconds(self) -> float:
        """Return the host's CPU seconds of all cells of which they are known."""
        return sum(self.expected[cell].cpu_seconds or 0.0 for cell in self.order)


def dry_run(settings: Settings, names: Sequence[str], costs: CostBook | None = None) -> DryRun:
    """Plan a validation as `hyperbox.harness.runs.validation.validate` would.

    Raises
    ------
    ConfigError
        For what that refuses: unknown names, settings that contradict each other.
    MissingDependency
        If the running kernel is asked for and its image is not there.
    """
    recorded: tuple[Cell, ...] = ()
    remarks: tuple[str, ...] = ()
    target = settings.target
    if settings.resume is not None:
        store = RunStore.open(settings.resume)
        info = resumed_info(settings, store, names)
        plan, target = info.plan, info.document["target"]
        todo = unfinished(plan, store)
        recorded = tuple(cell for cell in plan.cells() if cell not in todo)
    else:
        plan, remarks = _planned(settings, names)
        todo = plan.cells()
    book = costs or CostBook()
    expected = expect(plan, book.of(plan.cells()))
    jobs, fewer = jobs_for(settings, plan, target)
    order = longest_first(plan, todo, expected)
    said = (*remarks, fewer) if fewer else remarks
    return DryRun(plan, jobs, order, recorded, expected, said)


def _planned(settings: Settings, names: Sequence[str]) -> tuple[Plan, tuple[str, ...]]:
    suites = suites_for(settings, names)
    if settings.target == "host":
        return plan_for(settings, names, suites, (HOST,), (Lane.HOST,)), ()
    selectors = expand_kernels(settings.kernel, settings.modules)
    labels, known = foreseen_labels(selectors, settings.modules)
    remarks = list(known)
    lanes = []
    for wanted in (settings.lane, *_wanted(settings.beside)):
        lane, remark = _lane(wanted)
        lanes.append(lane)
        remarks.append(remark)
    plan = plan_for(settings, names, suites, labels, lanes)
    return plan, tuple(dict.fromkeys(remark for remark in remarks if remark))


def _wanted(beside: str) -> Iterator[str]:
    if beside != "none":
        yield beside


def _lane(wanted: str) -> tuple[Lane, str]:
    """Return the lane that is taken if KVM works, where that would have to be tried."""
    if wanted not in ("auto", "real", Lane.KVM):
        return Lane(wanted), ""
    other = Lane.EXACT if wanted == "auto" else Lane.FAST
    if os.access(_KVM, os.R_OK | os.W_OK):
        instead = "refused" if wanted == Lane.KVM else f"the {other} lane"
        return Lane.KVM, f"lane {wanted}: kvm if a kernel boots under {_KVM}, else {instead}"
    if wanted == Lane.KVM:
        raise ConfigError(f"{_KVM} cannot be opened by this user", hint="use --lane exact")
    return other, ""
