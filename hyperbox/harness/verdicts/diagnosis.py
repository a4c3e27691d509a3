"""What the blocks of a gate say about the measurement itself. Pure; changes no verdict.

Numbers for `Verdict.details`, all on the scale that is decided (log ratio or unit):

``spread``
    robust standard deviation of the blocks (median absolute deviation x 1.4826)
``order_effect``, ``p_order``
    median of the blocks with the baseline first minus the others' (rank-sum test)
``drift``, ``p_drift``
    Kendall's tau of the values with the order of the run
``lag1``, ``p_lag1``
    correlation of ranks of successive blocks; p is one-sided, for positive correlation
``outliers``
    blocks further than `far(n)` spreads from the median; they are kept
``warm_up``
    how many blocks at the start are such outliers (in the exact lane that is chance: each
    start is fresh)
``groups``
    how many values the blocks take if they take few (a remark says which), else 0
``asymmetry``
    distance of the signed-rank estimate from the median, in spreads (paired gates)
``power``, ``distance``
    chance of a verdict in the planned blocks if the truth lies `distance` from the limit
``detectable``
    distance from the limit that would be found with 80 % power

`distance` is taken from the target, never from the result: no change at all for
"not worse" and "within"; the middle of the band, or no change, for a reduction; a tenth
of the limit for a level. A remark is made where a test has p < `REMARKABLE`, so one in
a hundred sound cells gets it too.

Remarks withhold no verdict. In simulations of 32 blocks of an effect that drifts by 2
deviations, judged for all time, withholding those with p < 0.05 for drift or lag-1
correlation lowered wrong ones from 9.9 to 9.1 % a side, and right ones from 99 to 66 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hyperbox.harness.model import Gate, Outcome, Rule
from hyperbox.harness.statistics.design import LOOKS, Target
from hyperbox.harness.statistics.diagnostics import diagnostics, groups_of
from hyperbox.harness.statistics.power import WANTED_POWER, detectable, power
from hyperbox.harness.verdicts.blocks import DecidedBlock
from hyperbox.harness.verdicts.wording import number, relative

__all__ = [
    "REMARKABLE",
    "UNDERPOWERED",
    "Diagnosis",
    "diagnose",
]

REMARKABLE = 0.01
"""A diagnostic test with a smaller p makes a remark."""

UNDERPOWERED = "underpowered"
"""First word of the remark of a gate with less than 80 % power; its verdict stands all the same."""

_MOST = 256
_ASYMMETRIC = 0.5
_ASYMMETRY_BLOCKS = 20
_LEVEL_DISTANCE = 0.1  # of the limit


@dataclass(frozen=True)
class Diagnosis:
    """Named numbers and remarks about the blocks of one gate."""

    details: dict[str, float]
    remarks: tuple[str, ...]


def diagnose(
    gate: Gate,
    blocks: Sequence[DecidedBlock],
    target: Target,
    planned_blocks: int,
    outcome: Outcome = Outcome.INCONCLUSIVE,
) -> Diagnosis:
    """Diagnose the measured blocks of a gate; fewer than the first look say nothing.

    `outcome` only words the remark on power: a verdict that came did not want for it. Of very
    many blocks the first `_MOST` are diagnosed: pairs of blocks are compared.
    """
    if len(blocks) < LOOKS[0]:
        return Diagnosis({}, ())
    planned_blocks, blocks = max(planned_blocks, len(blocks)), blocks[:_MOST]
    values = np.array([block.value for block in blocks])
    orders = [block.baseline_first for block in blocks] if gate.is_paired else None
    details = diagnostics(values, orders)
    groups = groups_of(values)
    details["groups"] = float(len(groups))
    details |= _power(gate, target, details["spread"], planned_blocks)
    finite = {name: value for name, value in details.items() if math.isfinite(value)}
    remarks = _remarks(target, finite, len(blocks))
    if finite.get("power", 1.0) < WANTED_POWER:
        remarks.append(_underpowered(gate, finite, decided=outcome is not Outcome.INCONCLUSIVE))
    return Diagnosis(finite, (*remarks, *_group_remarks(gate, groups)))


def _power(gate: Gate, target: Target, spread: float, blocks: int) -> dict[str, float]:
    found = {}
    smallest = detectable(spread, blocks, target)
    if smallest is not None:
        found["detectable"] = smallest
    distance = _distance(gate, target)
    if distance:
        found |= {"distance": distance, "power": power(distance, spread, blocks, target)}
    return found


def _distance(gate: Gate, target: Target) -> float:
    """Return the distance from the limit that the gate should be able to resolve; 0: none."""
    limits = [limit for limit in (target.low, target.high) if limit is not None]
    nearest = min(limits, key=abs)
    if gate.rule is Rule.REDUCES_AT_LEAST and gate.band_upper is not None:
        middle = -(gate.margin + gate.band_upper) / 2
        return abs((math.log1p(middle) if gate.is_ratio else middle) - nearest)
    return abs(nearest) * (1.0 if gate.is_paired else _LEVEL_DISTANCE)


def _remarks(target: Target, details: dict[str, float], n: int) -> list[str]:
    remarks = []
    if details.get("p_order", 1.0) < REMARKABLE:
        remarks.append(
            f"order effect: it matters which arm runs first (p = {details['p_order']:.2g})"
        )
    if details["p_drift"] < REMARKABLE:
        way = "rise" if details["drift"] > 0 else "fall"
        remarks.append(
            f"drift: blocks {way} over the run (p = {details['p_drift']:.2g}); "
            "the verdict is on the blocks measured"
        )
    if details["p_lag1"] < REMARKABLE:
        remarks.append(
            f"blocks resemble their predecessors (lag-1 correlation {details['lag1']:.2f}): "
            "they may not be independent"
        )
    if details["outliers"]:
        remarks.append(f"{details['outliers']:.0f} of {n} blocks lie far off; they are kept")
    if details["warm_up"] and target.resolution is None:
        remarks.append(f"warm-up: the first {details['warm_up']:.0f} of them lie far off")
    if n >= _ASYMMETRY_BLOCKS and abs(details.get("asymmetry", 0.0)) > _ASYMMETRIC:
        remarks.append("asymmetric: blocks lie skewed around the estimate")
    return remarks


def _group_remarks(gate: Gate, groups: Sequence[tuple[int, float]]) -> list[str]:
    if not groups:
        return []
    middles = np.array([middle for _, middle in groups])
    with np.errstate(over="ignore"):
        shown = [relative(x) for x in np.expm1(middles)] if gate.is_ratio else map(number, middles)
    each = [f"{count} at {middle}" for (count, _), middle in zip(groups, shown, strict=True)]
    return [f"blocks fall into {len(groups)} groups: {', '.join(each)}"]


def _underpowered(gate: Gate, details: dict[str, float], *, decided: bool) -> str:
    if not gate.is_paired:
        truth = f"the truth is {100 * _LEVEL_DISTANCE:.0f} % off the limit"
    elif gate.band_upper is not None:
        truth = "the truth is the middle of the band"
    else:
        truth = "nothing changes"
    marked = f"{UNDERPOWERED} for smaller effects (the verdict stands)" if decided else UNDERPOWERED
    said = f"{marked}: a chance of {100 * details['power']:.0f} % of a verdict if {truth}"
    smallest = details.get("detectable")
    if smallest is None:
        return f"{said}; it takes at least {LOOKS[0]} blocks"
    share = number(smallest / details["distance"], 2)
    return f"{said}; for 80 % it takes {share} times that distance, or more blocks"
