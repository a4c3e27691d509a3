"""Which kernel, or run, is better at what, by how much, how sure. Pure.

Compared are metrics of an arm that have a better direction, on blocks: log ratios where
all values are positive, else differences. Blocks that share seed, kernel and number had
the same perturbed start and are pairs, tested as the gates of their lane test pairs. Others are
compared unpaired, as many of each side: rank sums are exact where both sides
spread alike; where one spreads ten times as wide, false claims at 5 % become 7 to 8 % between
sets of one size, but 22 % where 8 wide blocks stand against 32.

A side is called better if its p-value stays below 5 % when corrected for all rows; rows of the
same blocks are corrected together (`statistics.joint`). In the exact lane no side is better by less
than what two boots of one kernel differ by. Rows whose number of blocks cannot give such a
p-value, whatever was measured, are listed apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hyperbox.errors import ConfigError
from hyperbox.harness.model import Cell, Experiment, Lane
from hyperbox.harness.report.comparison_caveats import (
    both_measured,
    caveats,
    exact_in_truth,
    left_out,
)
from hyperbox.harness.report.comparison_data import ALPHA, ComparedMetric, SideComparison
from hyperbox.harness.report.data import CellData, RunData
from hyperbox.harness.statistics.design import InferenceKind
from hyperbox.harness.statistics.joint import Group, exchanged_pairs, exchanged_sets, step_down
from hyperbox.harness.statistics.multiplicity import holm
from hyperbox.harness.statistics.shifts import Shift, paired_shift, unpaired_shift
from hyperbox.harness.verdicts.targets import EXACT_RESOLUTION, pairs_kind

__all__ = ["compare"]

_MOST_TOGETHER = 1000
"""Beyond so many rows each is corrected for as if it stood alone (Holm): more takes too long."""


@dataclass(frozen=True)
class _Side:
    """One side of the comparison: a run, and the kernel chosen of it (None: each with its own)."""

    run: RunData
    kernel: str | None
    label: str


@dataclass(frozen=True)
class _Values:
    """A metric of an arm on both sides, block by block, on the scale that it is compared on.

    `blocks` are the numbers of the blocks on both sides; `unused` says that there were more.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]
    blocks: tuple[tuple[int, ...], tuple[int, ...]]
    ratio: bool
    paired: bool
    unused: bool

    @property
    def identical(self) -> bool:
        """Whether no block differs from its pair, or from any other where there are no pairs."""
        if self.paired:
            return self.first == self.second
        return len({*self.first, *self.second}) == 1

    def shift(self, kind: InferenceKind) -> Shift:
        """Locate the second side against the first; `kind` tests pairs."""
        if not self.paired:
            return unpaired_shift(self.first, self.second)
        pairs = zip(self.first, self.second, strict=True)
        return paired_shift([second - first for first, second in pairs], kind=kind)


@dataclass(frozen=True)
class _Measured:
    """A row with what it rests on; rows of one `cell` may share their blocks."""

    row: ComparedMetric
    values: _Values
    kind: InferenceKind
    cell: Cell


def compare(
    first: RunData, second: RunData | None = None, kernels: Sequence[str] = ()
) -> SideComparison:
    """Compare two kernels of a run, two runs kernel by kernel, or a kernel of each.

    Raises
    ------
    ConfigError
        If the sides measured nothing in the same way: other experiments, other lane, no
        kernel in common.
    """
    one, two = _sides(first, second, kernels)
    pairs = list(_pairs(one, two))
    alike = [(left, right) for left, right in pairs if _same_measurement(left, right)]
    damage = [f"damage: {problem}" for run in (one.run, two.run) for problem in run.problems]
    labels = (one.label, two.label)
    missing = [] if pairs else [_why_incomparable(one, two)]
    others = dict.fromkeys(left.cell.experiment for left, right in pairs)
    for name in others.keys() - {left.cell.experiment for left, _ in alike}:
        missing.append(f"{name} is not the same experiment on both sides")
    missing += left_out(_of(one), _of(two), pairs, labels)
    shared_starts = one.run.seed == two.run.seed
    found = [row for pair in alike for row in _measured(*pair, shared_starts=shared_starts)]
    if not found:
        why = "; ".join(dict.fromkeys(missing)) or "no metric was measured on both sides"
        hint = f"{len(damage)} damaged: `hyperbox report RUN` names them" if damage else ""
        raise ConfigError(f"cannot compare {one.label} with {two.label}: {why}", hint=hint)
    rows = _paid_for(found)
    remarks = (*caveats(alike, labels), *damage, *missing, *_unused(found), *_of_statistics(rows))
    return SideComparison(one.label, two.label, rows, tuple(dict.fromkeys(remarks)))


def _paid_for(found: Sequence[_Measured]) -> tuple[ComparedMetric, ...]:
    """Adjust the p-values of the rows for their number."""
    p_values = [one.row.shift.p for one in found]
    if len(found) > _MOST_TOGETHER:
        able = [p for p, one in zip(p_values, found, strict=True) if one.row.able]
        paid = iter(holm(able))
        adjusted = [next(paid) if one.row.able else 1.0 for one in found]
    else:
        adjusted = step_down(p_values, list(_groups(found)))
    return tuple(replace(one.row, p=p) for one, p in zip(found, adjusted, strict=True))


def _groups(found: Sequence[_Measured]) -> Iterator[Group]:
    """Gather the rows of the same blocks, with what luck does to them."""
    places: dict[tuple[object, ...], list[int]] = {}
    for place, one in enumerate(found):
        places.setdefault((one.cell, one.values.blocks, one.values.paired), []).append(place)
    for together in places.values():
        members = [found[place] for place in together]
        first = np.array([one.values.first for one in members])
        second = np.array([one.values.second for one in members])
        if members[0].values.paired:
            luck, drawn = exchanged_pairs(second - first, members[0].kind)
        else:
            luck, drawn = exchanged_sets(first, second)
        yield Group(tuple(together), luck, drawn)


def _unused(found: Sequence[_Measured]) -> Iterator[str]:
    """Name the cells whose sides have not the same number of blocks."""
    uneven = {one.cell.experiment: None for one in found if one.values.unused}
    if uneven:
        yield (
            "of the side with more blocks only as many as the other has are compared, the first "
            f"ones: {', '.join(uneven)}"
        )


def _of_statistics(rows: Sequence[ComparedMetric]) -> Iterator[str]:
    """Say what the findings rest on, where it is not the same for every comparison."""
    if not any(row.able for row in rows):
        return
    smallest = [row.shift.smallest_p for row in rows]
    cells = {(row.kernel, row.experiment, row.lane, row.shift.n): row for row in rows}
    reached = [row.shift.smallest_p for row in cells.values()]
    if all(p * sum(other <= p for other in reached) > ALPHA for p in smallest):
        yield (
            f"so few blocks can make nothing sure in {len(cells)} cells at once: compare fewer "
            "kernels, or measure more blocks (--blocks)"
        )
    if any(row.close and row.p <= ALPHA for row in rows):
        yield (
            f"exact lane: by less than {100 * EXACT_RESOLUTION:g} % no side is called better: two "
            "boots of one kernel differ by nearly as much"
        )
    if any(row.lane is Lane.EXACT for row in rows):
        yield "exact lane: compares work in instructions, not hardware speed"
    if any(row.lane is not Lane.EXACT for row in rows):
        yield (
            "host time: one side was measured after the other, so what changed on the machine "
            "meanwhile counts as theirs"
        )


def _sides(first: RunData, second: RunData | None, kernels: Sequence[str]) -> tuple[_Side, _Side]:
    if kernels and len(kernels) != 2:
        raise ConfigError("--kernels takes two kernels", hint="for example --kernels 6.12 7.3")
    if second is None or (second.run_id, second.directory) == (first.run_id, first.directory):
        if not kernels:
            raise ConfigError(
                "one run needs two kernels to compare", hint="add --kernels A B, or a second run"
            )
        if kernels[0] == kernels[1]:
            raise ConfigError(
                f"kernel {kernels[0]} of a run is itself", hint="name two kernels, or a second run"
            )
        second = first
    runs = (first, second)
    for run, kernel in zip(runs, kernels, strict=False):
        known = dict.fromkeys(cell.cell.kernel for cell in run.cells)
        if kernel not in known:
            listed = ", ".join(known) or "none"
            raise ConfigError(
                f"{run.run_id} did not measure kernel {kernel}", hint=f"it has {listed}"
            )
    if not kernels:
        names = (first.run_id, second.run_id)
        if names[0] == names[1]:
            names = (str(first.directory), str(second.directory))
        return _Side(first, None, names[0]), _Side(second, None, names[1])
    labels = kernels
    if first is not second:
        labels = [f"{k} of {run.run_id}" for k, run in zip(kernels, runs, strict=True)]
    return _Side(first, kernels[0], labels[0]), _Side(second, kernels[1], labels[1])


def _of(side: _Side) -> tuple[CellData, ...]:
    return tuple(cell for cell in side.run.cells if side.kernel in (None, cell.cell.kernel))


def _pairs(one: _Side, two: _Side) -> Iterator[tuple[CellData, CellData]]:
    def key(cell: CellData, side: _Side) -> tuple[str, str, Lane]:
        kernel = "" if side.kernel else cell.cell.kernel
        return (cell.cell.experiment, kernel, cell.cell.lane)

    right = {key(cell, two): cell for cell in _of(two)}
    for cell in _of(one):
        other = right.get(key(cell, one))
        if other is not None:
            yield cell, other


def _why_incomparable(one: _Side, two: _Side) -> str:
    left, right = one.run.cells, two.run.cells
    if not left or not right:
        return "a run without cells"
    lanes = ({c.cell.lane for c in left}, {c.cell.lane for c in right})
    if not lanes[0] & lanes[1]:
        named = (", ".join(sorted(lane)) for lane in lanes)
        return f"other lanes ({' against '.join(named)}): their numbers mean different things"
    if not {c.cell.experiment for c in left} & {c.cell.experiment for c in right}:
        return "no experiment in common"
    if not {c.cell.kernel for c in left} & {c.cell.kernel for c in right}:
        return "no kernel in common; --kernels A B compares A of the first with B of the second"
    return "no experiment that both measured on one kernel in one lane"


def _same_measurement(left: CellData, right: CellData) -> bool:
    """Whether two declarations measure the same, whatever their titles and numbers of blocks."""

    def essence(experiment: Experiment) -> tuple[object, ...]:
        arms = tuple(arm.id for arm in experiment.arms)
        metrics = tuple((m.id, m.unit, m.better) for m in experiment.metrics)
        started = (experiment.program, experiment.prepare, experiment.machine.commandline)
        return (experiment.id, arms, metrics, *started)

    one, two = left.experiment, right.experiment
    return one == two or essence(one) == essence(two)


def _measured(left: CellData, right: CellData, *, shared_starts: bool) -> Iterator[_Measured]:
    paired = shared_starts and left.cell.kernel == right.cell.kernel
    lane = left.cell.lane if exact_in_truth(left) and exact_in_truth(right) else Lane.FAST
    kernel = left.cell.kernel
    if right.cell.kernel != kernel:
        kernel = f"{kernel} / {right.cell.kernel}"
    for metric, arm, first, second in both_measured(left, right):
        values = _values(first, second, paired=paired)
        shift = values.shift(pairs_kind(lane))
        close = lane is Lane.EXACT and abs(shift.estimate) <= math.log1p(EXACT_RESOLUTION)
        row = ComparedMetric(
            kernel,
            left.cell.experiment,
            left.cell.lane,
            arm.id,
            metric,
            first=_median([first[block] for block in values.blocks[0]]),
            second=_median([second[block] for block in values.blocks[1]]),
            shift=shift,
            ratio=values.ratio,
            identical=values.identical,
            close=close and values.ratio,
        )
        yield _Measured(row, values, pairs_kind(lane), left.cell)


def _values(first: Mapping[int, float], second: Mapping[int, float], *, paired: bool) -> _Values:
    shared = tuple(sorted(first.keys() & second.keys()))
    paired = paired and bool(shared)
    fewer = min(len(first), len(second))
    blocks = (shared, shared) if paired else (_lowest(first, fewer), _lowest(second, fewer))
    ratio = min(*first.values(), *second.values()) > 0

    def scaled(values: Mapping[int, float], numbers: Sequence[int]) -> tuple[float, ...]:
        return tuple(math.log(values[n]) if ratio else values[n] for n in numbers)

    unused = len(blocks[0]) < max(len(first), len(second))
    sides = (scaled(first, blocks[0]), scaled(second, blocks[1]))
    return _Values(*sides, blocks, ratio, paired, unused)


def _lowest(values: Mapping[int, float], count: int) -> tuple[int, ...]:
    """Return the numbers of the first blocks: their values have no say in which."""
    return tuple(sorted(values)[:count])


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[-middle - 1]) / 2
