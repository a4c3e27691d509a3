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
    distance from the limit that would be told with 80 % power

`distance` is taken from the target, never from the result: no change at all for
"not worse" and "within"; the middle of the band, or no change, for a reduction; a tenth
of the limit for a level. A remark is made where a test has p < `REMARKABLE`, so one in
a hundred sound cells gets it too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hyperbox.harness.model import Gate, Rule
from hyperbox.harness.verdicts.blocks import DecidedBlock
from hyperbox.harness.verdicts.power import WANTED_POWER, detectable, power
from hyperbox.harness.verdicts.sequential import spread_of
from hyperbox.harness.verdicts.statistics import LOOKS, Kind, Matrix, median, points
from hyperbox.harness.verdicts.targets import Target
from hyperbox.harness.verdicts.wording import number, relative

__all__ = [
    "REMARKABLE",
    "UNDERPOWERED",
    "Diagnosis",
    "diagnose",
    "far",
    "groups_of",
    "warm_up_length",
]

REMARKABLE = 0.01
"""A diagnostic test with a smaller p makes a remark."""

UNDERPOWERED = "underpowered"
"""First word of the remark of a gate with less than 80 % power."""

_MOST = 256
_ASYMMETRIC = 0.5
_ASYMMETRY_BLOCKS = 20
_APART = 1 / 5  # of the range
_TIGHT = 1 / 20
_LEVEL_DISTANCE = 0.1  # of the limit


@dataclass(frozen=True)
class Diagnosis:
    """Named numbers and remarks about the blocks of one gate."""

    details: dict[str, float]
    remarks: tuple[str, ...]


def diagnose(
    gate: Gate, blocks: Sequence[DecidedBlock], target: Target, planned_blocks: int
) -> Diagnosis:
    """Diagnose the measured blocks of a gate; fewer than the first look say nothing.

    Of very many blocks the first `_MOST` are diagnosed: pairs of blocks are compared.
    """
    if len(blocks) < LOOKS[0]:
        return Diagnosis({}, ())
    planned_blocks, blocks = max(planned_blocks, len(blocks)), blocks[:_MOST]
    values = np.array([block.value for block in blocks])
    spread = float(spread_of(values))
    signs = np.sign(values[:, np.newaxis] - values)
    ranks = (signs.sum(axis=1) + len(blocks) + 1) / 2  # ties share their ranks
    details = {"spread": spread, **_over_time(signs, ranks)}
    if gate.is_paired:
        details |= _order(values, ranks, [block.baseline_first for block in blocks])
        details |= _asymmetry(values, spread)
    details |= _outliers(values, spread)
    groups = groups_of(values)
    details["groups"] = float(len(groups))
    details |= _power(gate, target, spread, planned_blocks)
    finite = {name: value for name, value in details.items() if math.isfinite(value)}
    remarks = _remarks(gate, target, finite, len(blocks))
    return Diagnosis(finite, (*remarks, *_group_remarks(gate, groups)))


def far(n: int) -> float:
    """Give the spreads from the median beyond which one of `n` blocks is an outlier.

    Of few values the spread is ill known: 8 spreads of 8 values, 5.75 of 32, so that at
    most one in a hundred normal samples has an outlier.
    """
    return 5 + 24 / n


def groups_of(values: Matrix) -> list[tuple[int, float]]:
    """Give size and middle of each group if the values fall into few tight ones, else none.

    Groups are set apart by a fifth of the range and are no wider than a twentieth of it:
    of sound samples of any usual shape less than one in two hundred looks so.
    """
    ordered = np.sort(values)
    reach = float(ordered[-1] / 2 - ordered[0] / 2)  # halves: huge values overflow
    if reach <= 0:
        return []
    gaps = ordered[1:] / 2 - ordered[:-1] / 2
    parts = np.split(ordered, np.flatnonzero(gaps > _APART * reach) + 1)
    several = sum(part.size > 1 for part in parts)
    widest = max(float(part[-1] / 2 - part[0] / 2) for part in parts)
    if not 2 <= len(parts) <= values.size / 2 or several < 2:
        return []
    return [] if widest > _TIGHT * reach else [(p.size, float(median(p))) for p in parts]


def warm_up_length(values: Sequence[float]) -> int:
    """Give how many values at the start are far from what the rest agree on.

    For a pilot: measure it once, write the number into the program, and keep it there.
    Choosing it anew from the data that decide would bias them. At most half of the
    values can be warm-up.
    """
    vector = np.asarray(values, dtype=np.float64)
    settled = vector[vector.size // 2 :]
    if settled.size < 2:
        return 0
    centre, spread = float(median(settled)), float(spread_of(settled))
    for place, value in enumerate(vector[: vector.size // 2]):
        if abs(value - centre) <= far(settled.size) * spread:
            return place
    return vector.size // 2


def _over_time(signs: Matrix, ranks: Matrix) -> dict[str, float]:
    """Test for a trend and for likeness of neighbours."""
    n = ranks.size
    agreement = float(np.tril(signs).sum())
    deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    centred = ranks - (n + 1) / 2
    square = float(centred @ centred)
    lag = float(centred[1:] @ centred[:-1]) / square if square else 0.0
    # Moments of ranks under independence: Dufour and Roy 1985, "Some robust exact results
    # on sample autocorrelations and tests of randomness".
    of_ranks = 5 * n**4 - 14 * n**3 - 9 * n**2 + 26 * n + 16
    lag_deviation = math.sqrt(of_ranks / (5 * (n - 1) ** 2 * n**2 * (n + 1)))
    return {
        "drift": agreement / (n * (n - 1) / 2),
        "p_drift": _two_sided(max(0.0, abs(agreement) - 1) / deviation),
        "lag1": lag,
        "p_lag1": _upper((lag + 1 / n) / lag_deviation) if square else 1.0,
    }


def _order(values: Matrix, ranks: Matrix, baseline_first: Sequence[bool]) -> dict[str, float]:
    """Test whether it matters which arm runs first (Mann-Whitney, normal approximation)."""
    first = np.array(baseline_first)
    n, m = int(first.sum()), int((~first).sum())
    if not n or not m:
        return {"order_effect": 0.0, "p_order": 1.0}
    statistic = float(ranks[first].sum()) - n * (n + 1) / 2
    distance = max(0.0, abs(statistic - n * m / 2) - 0.5)
    return {
        "order_effect": float(median(values[first]) - median(values[~first])),
        "p_order": _two_sided(distance / math.sqrt(n * m * (n + m + 1) / 12)),
    }


def _asymmetry(values: Matrix, spread: float) -> dict[str, float]:
    if spread <= 0:
        return {"asymmetry": 0.0}
    centre = float(median(points(values, Kind.SIGNED_RANK)))
    return {"asymmetry": (centre - float(median(values))) / spread}


def _outliers(values: Matrix, spread: float) -> dict[str, float]:
    if spread <= 0:
        return {"outliers": 0.0, "warm_up": 0.0}
    beyond = np.abs(values - median(values)) > far(values.size) * spread
    warm_up = int(np.argmin(beyond)) if not beyond.all() else 0
    return {"outliers": float(np.count_nonzero(beyond)), "warm_up": float(warm_up)}


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
    """Give the distance from the limit that the gate should be able to tell; 0: none."""
    limits = [limit for limit in (target.low, target.high) if limit is not None]
    nearest = min(limits, key=abs)
    if gate.rule is Rule.REDUCES_AT_LEAST and gate.band_upper is not None:
        middle = -(gate.margin + gate.band_upper) / 2
        return abs((math.log1p(middle) if gate.is_ratio else middle) - nearest)
    return abs(nearest) * (1.0 if gate.is_paired else _LEVEL_DISTANCE)


def _remarks(gate: Gate, target: Target, details: dict[str, float], n: int) -> list[str]:
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
        minded = ", which signed ranks mind" if target.kind is Kind.SIGNED_RANK else ""
        remarks.append(f"asymmetric: blocks lie skewed around the estimate{minded}")
    if details.get("power", 1.0) < WANTED_POWER:
        remarks.append(_underpowered(gate, details))
    return remarks


def _group_remarks(gate: Gate, groups: Sequence[tuple[int, float]]) -> list[str]:
    if not groups:
        return []
    middles = np.array([middle for _, middle in groups])
    with np.errstate(over="ignore"):
        shown = [relative(x) for x in np.expm1(middles)] if gate.is_ratio else map(number, middles)
    told = [f"{count} at {middle}" for (count, _), middle in zip(groups, shown, strict=True)]
    return [f"blocks fall into {len(groups)} groups: {', '.join(told)}"]


def _underpowered(gate: Gate, details: dict[str, float]) -> str:
    if not gate.is_paired:
        truth = f"the truth is {100 * _LEVEL_DISTANCE:.0f} % off the limit"
    elif gate.band_upper is not None:
        truth = "the truth is the middle of the band"
    else:
        truth = "nothing changes"
    told = f"{UNDERPOWERED}: a chance of {100 * details['power']:.0f} % of a verdict if {truth}"
    smallest = details.get("detectable")
    if smallest is None:
        return f"{told}; it takes at least {LOOKS[0]} blocks"
    share = number(smallest / details["distance"], 2)
    return f"{told}; for 80 % it takes {share} times that distance, or more blocks"


def _upper(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2))


def _two_sided(z: float) -> float:
    return math.erfc(z / math.sqrt(2))
