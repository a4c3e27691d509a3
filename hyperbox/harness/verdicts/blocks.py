"""Samples of a cell as a gate sees them: one value per block, or why there is none. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hyperbox.harness.model import Gate, Sample
from hyperbox.harness.verdicts.wording import number

__all__ = ["BrokenMeasurement", "DecidedBlock", "decided_blocks"]


class BrokenMeasurement(Exception):
    """The samples or the declaration cannot carry a verdict; the text says why."""


@dataclass(frozen=True)
class DecidedBlock:
    """What a gate decides on in one block.

    `value` is log(tuned / baseline), the difference tuned - baseline, or the level, as
    the gate's rule and scale ask. `baseline_first` is the order of a pair.
    """

    block: int
    value: float
    baseline_first: bool = False


def decided_blocks(gate: Gate, samples: Sequence[Sample]) -> tuple[DecidedBlock, ...]:
    """Return one value per block, in the order of the blocks.

    Raises
    ------
    BrokenMeasurement
        If a block has not exactly one finite value of each arm that the gate needs, or
        values of which there is no ratio.
    """
    blocks = _by_block(gate, samples)
    if not gate.is_paired:
        return tuple(
            DecidedBlock(block, samples_[gate.arm].value) for block, samples_ in blocks.items()
        )
    baseline = gate.baseline or ""
    return tuple(
        DecidedBlock(
            block,
            _compared(gate, block, pair[baseline].value, pair[gate.arm].value),
            pair[baseline].position < pair[gate.arm].position,
        )
        for block, pair in blocks.items()
    )


def _compared(gate: Gate, block: int, baseline: float, tuned: float) -> float:
    if not gate.is_ratio:
        difference = tuned - baseline
        if not math.isfinite(difference):
            raise _beyond(gate, block, "difference", baseline, tuned)
        return difference
    for arm, value in ((gate.baseline, baseline), (gate.arm, tuned)):
        if value <= 0:
            raise BrokenMeasurement(
                f"{gate.metric} of arm {arm} is {number(value)} in block {block}: "
                "a ratio needs positive values"
            )
    # log(B/A), not log B - log A: a ratio equal to the margin must stay equal.
    ratio = tuned / baseline
    if not 0 < ratio < math.inf:
        raise _beyond(gate, block, "ratio", baseline, tuned)
    return math.log(ratio)


def _beyond(gate: Gate, block: int, what: str, baseline: float, tuned: float) -> BrokenMeasurement:
    return BrokenMeasurement(
        f"{gate.metric} of block {block} has a {what} beyond any measurement: "
        f"{baseline:g} against {tuned:g}"
    )


def _by_block(gate: Gate, samples: Sequence[Sample]) -> dict[int, dict[str, Sample]]:
    """Return block -> arm -> sample in block order, complete for the arms of the gate."""
    arms = (gate.baseline, gate.arm) if gate.is_paired else (gate.arm,)
    blocks: dict[int, dict[str, Sample]] = {sample.block: {} for sample in samples}
    for sample in samples:
        if sample.metric != gate.metric or sample.arm not in arms:
            continue
        block = blocks[sample.block]
        named = f"{gate.metric} of arm {sample.arm}"
        if sample.arm in block:
            raise BrokenMeasurement(f"{named} was measured twice in block {sample.block}")
        if not math.isfinite(sample.value):
            raise BrokenMeasurement(f"{named} is {sample.value} in block {sample.block}")
        block[sample.arm] = sample
    if not blocks:
        raise BrokenMeasurement("nothing was measured")
    for number_, block in blocks.items():
        for arm in arms:
            if arm not in block:
                raise BrokenMeasurement(f"{gate.metric} of arm {arm} is missing in block {number_}")
    return dict(sorted(blocks.items()))
