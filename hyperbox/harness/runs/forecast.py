"""How long a run will take and in which order it goes fastest, from earlier costs; pure."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hyperbox.harness.model import Cell, Experiment
from hyperbox.harness.runs.costs import Cost
from hyperbox.harness.runs.events import (
    AttemptRecorded,
    BlockMeasured,
    CellResumed,
    CellStarted,
    Event,
)
from hyperbox.harness.runs.plan import Plan

__all__ = ["Expectation", "Forecast", "Left", "expect", "longest_first", "makespan", "spell"]


@dataclass(frozen=True)
class Expectation:
    """What a cell is expected to take, in seconds of the host's clock and of its CPUs.

    `basis` says what the numbers are from; where it is empty there are none, and `blocks` is
    the largest number.
    """

    cell: Cell
    blocks: int
    seconds: float | None = None
    cpu_seconds: float | None = None
    basis: str = ""


@dataclass(frozen=True)
class Left:
    """Seconds that a run still takes, without its `unknown` cells."""

    seconds: float
    unknown: int

    def __str__(self) -> str:
        """Return it in words; empty if nothing is known."""
        if self.unknown and self.seconds < 1:
            return ""
        return f"{'more than' if self.unknown else 'about'} {spell(self.seconds)}"


def expect(plan: Plan, costs: Mapping[Cell, Cost]) -> dict[Cell, Expectation]:
    """Return what every cell of a plan is expected to take.

    A cell without a cost of its own is taken for the average of its experiment's others in
    the same lane.
    """
    found = {}
    for cell in plan.cells():
        experiment = plan.experiment(cell.experiment)
        kin = [
            cost
            for other, cost in costs.items()
            if (other.experiment, other.lane) == (cell.experiment, cell.lane)
        ]
        if cell in costs:
            found[cell] = _expected(cell, experiment, [costs[cell]], "its last run")
        elif kin:
            found[cell] = _expected(cell, experiment, kin, "other kernels")
        else:
            found[cell] = Expectation(cell, experiment.blocks)
    return found


def _expected(cell: Cell, experiment: Experiment, costs: Sequence[Cost], basis: str) -> Expectation:
    blocks = max(
        min(cost.blocks, experiment.blocks) if cost.settled else experiment.blocks for cost in costs
    )
    wall, cpu, ready = (
        statistics.fmean(getattr(cost, kind) for cost in costs)
        for kind in ("seconds", "cpu_seconds", "ready_s")
    )
    return Expectation(cell, blocks, ready + blocks * wall, blocks * cpu, basis)


def longest_first(
    plan: Plan, cells: Iterable[Cell], expected: Mapping[Cell, Expectation]
) -> tuple[Cell, ...]:
    """Return cells in the order that keeps all jobs busy to the end: the longest begin first.

    Unknown cells begin before the others, those with the highest limit first. The deciding
    lane goes before the lanes beside it: an interrupted run has its verdicts. Ties keep the
    plan's order.
    """
    lanes = (plan.lane, *plan.beside)

    def key(cell: Cell) -> tuple[int, bool, float]:
        seconds = expected[cell].seconds
        longest = plan.experiment(cell.experiment).limit if seconds is None else seconds
        return lanes.index(cell.lane), seconds is not None, -longest

    return tuple(sorted(cells, key=key))


def makespan(running: Iterable[float], waiting: Iterable[float], jobs: int) -> float:
    """Return the seconds until all is done: whoever is free takes the next that waits."""
    free = list(running)
    free += [0.0] * (jobs - len(free))
    heapq.heapify(free)
    for seconds in waiting:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free, default=0.0)


def spell(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


@dataclass
class _Running:
    """A cell being measured: since when, and how many blocks by when."""

    began: float
    done: int = 0
    at: float = 0.0


class Forecast:
    """Keeps what a run still takes, by the events so far and what was expected.

    Parameters
    ----------
    expected
        Of the cells to be measured, in the order in which they begin.
    jobs
        How many are measured at once.
    """

    def __init__(self, expected: Sequence[Expectation], jobs: int) -> None:
        self._expected = {one.cell: one for one in expected}
        self._waiting = dict(self._expected)
        self._running: dict[Cell, _Running] = {}
        self._took: dict[str, list[float]] = {}
        self._jobs = jobs

    def note(self, event: Event, now: float) -> None:
        """Take note of an event at `now` (any clock, in seconds)."""
        if isinstance(event, CellStarted):
            self._waiting.pop(event.cell, None)
            self._running[event.cell] = _Running(now)
        elif isinstance(event, BlockMeasured) and event.cell in self._running:
            running = self._running[event.cell]
            running.done, running.at = event.done, now
        elif isinstance(event, AttemptRecorded) and event.final:
            ended = self._running.pop(event.cell, None)
            if ended is not None and ended.done:
                self._took.setdefault(_kind(event.cell), []).append(now - ended.began)
        elif isinstance(event, CellResumed):
            self._waiting.pop(event.cell, None)

    def left(self, now: float) -> Left:
        """Return what is left at `now`."""
        running = [self._rest(cell, state, now) for cell, state in self._running.items()]
        waiting = [self._whole(one) for one in self._waiting.values()]
        known = [seconds for seconds in running if seconds is not None]
        ahead = [seconds for seconds in waiting if seconds is not None]
        unknown = len(running) + len(waiting) - len(known) - len(ahead)
        return Left(makespan(known, ahead, self._jobs), unknown)

    def _rest(self, cell: Cell, state: _Running, now: float) -> float | None:
        """Return what a running cell still takes, by its own pace as soon as it has one."""
        one = self._expected.get(cell)
        if one is None:
            return None
        if state.done:
            each = (state.at - state.began) / state.done
            return max(0.0, each * (one.blocks - state.done) - (now - state.at))
        whole = self._whole(one)
        return None if whole is None else max(0.0, whole - (now - state.began))

    def _whole(self, one: Expectation) -> float | None:
        if one.seconds is not None:
            return one.seconds
        took = self._took.get(_kind(one.cell))
        return statistics.fmean(took) if took else None


def _kind(cell: Cell) -> str:
    return f"{cell.experiment}--{cell.lane}"
