"""Where a good location lies, and how a claim about it is tested: gates as numbers. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hyperbox.harness.model import Experiment, Gate, Lane, Metric, Rule
from hyperbox.harness.verdicts.blocks import BrokenMeasurement
from hyperbox.harness.verdicts.statistics import ALPHA, LOOK_ALPHA, LOOKS, Kind

__all__ = [
    "EXACT_RESOLUTION",
    "ONE_LIMIT",
    "SIGN_LIMIT",
    "SIGN_TWO_LIMITS",
    "TWO_LIMITS",
    "Target",
    "checked_metric",
    "limit_of",
    "limits_of",
    "pairs_kind",
    "target_of",
]

EXACT_RESOLUTION = 0.001
"""Smallest relative distance from a limit that the exact lane claims.

Two boots of one kernel differ by up to 0.07 % in the work that they count, which starts
perturbed from one snapshot cannot show.
"""

ONE_LIMIT: tuple[float, ...] = (LOOK_ALPHA,) * len(LOOKS)
"""Bound of each look where a wrong verdict has one side."""

SIGN_LIMIT: tuple[float, ...] = (0.0040, 0.0034, 0.0060, 0.0116)
"""The same for the sign test, whose coarse steps (0.0039, 0.0032, 0.0059, 0.0100) leave
more for the last look."""

# A FAIL of a target with two limits may err on two sides, so each has half of the budget.
# The first look needs 1/256 to be able to decide at all; the others share the rest.
_FIRST = 1 / 256
TWO_LIMITS: tuple[float, ...] = (
    _FIRST,
    *((ALPHA / 2 - _FIRST) / (len(LOOKS) - 1),) * (len(LOOKS) - 1),
)
"""Bound of each look and each side for a target with two limits."""

SIGN_TWO_LIMITS: tuple[float, ...] = (_FIRST, 0.0033, 0.0014, ALPHA / 2 - _FIRST - 0.0047)
"""The same for the sign test (steps: 0.0039, 0.0032, 0.0013, 0.0035)."""


@dataclass(frozen=True)
class Target:
    """A good location lies at or above `low` and at or below `high` (None: no such limit).

    The limits are on the scale of the decided values: log ratio, or the metric's unit.
    `limit_counts` says whether a limit itself is good. `alphas` bound the error of each
    planned look and side. `resolution` is None where only noise limits what can be
    claimed; else (exact lane) the estimate must also lie further from the limit than the
    spread of the starts and than `resolution`, or nothing is claimed.
    """

    low: float | None
    high: float | None
    limit_counts: bool = True
    kind: Kind = Kind.SIGNED_RANK
    alphas: tuple[float, ...] = ONE_LIMIT
    resolution: float | None = None


def pairs_kind(lane: Lane) -> Kind:
    """Give the test that judges pairs in a lane; their estimate goes with it: see `target_of`."""
    return Kind.SIGN if lane is Lane.EXACT else Kind.SIGNED_RANK


def target_of(gate: Gate, metric: Metric, lane: Lane) -> Target:
    """Give the target of any gate but a count's.

    Levels are tested by the sign test, which needs nothing but independent blocks.
    Differences within randomly ordered pairs are symmetric around a constant effect
    whatever the machine does over time, so pairs are tested by signed ranks, which need
    fewer blocks. In the exact lane blocks are independent by construction, and starts
    change the effect itself: a loop that takes one of two times, by where its memory came
    to lie, gives differences of three values, of which signed ranks mind the rare ones. So
    pairs are tested by signs and told by their median there. At 8 blocks both tests are
    one; beyond, the distance that the spread of the starts asks for leaves little to gain
    (power at one spread from the limit and 32 blocks: 0.71 by signs, 0.75 by ranks).
    """
    low, high = limits_of(gate, metric)
    if gate.is_ratio:
        low, high = (None if edge is None else math.log(1 + edge) for edge in (low, high))
    resolution = None
    ranked = gate.is_paired and pairs_kind(lane) is Kind.SIGNED_RANK
    if lane is Lane.EXACT:
        resolution = EXACT_RESOLUTION if gate.is_ratio else 0.0
    return Target(
        low,
        high,
        limit_counts=gate.rule is not Rule.NON_INFERIOR,
        kind=Kind.SIGNED_RANK if ranked else Kind.SIGN,
        alphas=_alphas(gate, ranked=ranked),
        resolution=resolution,
    )


def _alphas(gate: Gate, *, ranked: bool) -> tuple[float, ...]:
    if gate.rule is Rule.WITHIN:
        return TWO_LIMITS if ranked else SIGN_TWO_LIMITS
    return ONE_LIMIT if ranked else SIGN_LIMIT


def limits_of(gate: Gate, metric: Metric) -> tuple[float | None, float | None]:
    """Give the lower and the upper limit of the target in the verdict's terms.

    "Within 2 %" reads the same whichever arm is called the baseline: -1.96 % to +2 %.
    """
    if gate.rule is Rule.WITHIN:
        lower = -gate.margin / (1 + gate.margin) if gate.is_ratio else -gate.margin
        return lower, gate.margin
    limit = limit_of(gate, metric)
    raised = gate.rule is Rule.AT_LEAST or (
        gate.rule is Rule.NON_INFERIOR and metric.better == "higher"
    )
    return (limit, None) if raised else (None, limit)


def limit_of(gate: Gate, metric: Metric) -> float:
    """Give the target's limit in the verdict's terms: relative change, or the metric's unit.

    A target with two limits gives the upper one; see `limits_of`.
    """
    if gate.rule is Rule.REDUCES_AT_LEAST:
        return -gate.margin
    if gate.rule is Rule.NON_INFERIOR:
        return -gate.margin if metric.better == "higher" else gate.margin
    return gate.margin


def checked_metric(gate: Gate, experiment: Experiment) -> Metric:
    """Give the gate's metric after checking that gate and experiment fit together.

    Raises
    ------
    BrokenMeasurement
        If they do not; declarations refuse that, but a damaged record may hold it.
    """
    if gate.experiment != experiment.id:
        raise BrokenMeasurement(f"gate belongs to {gate.experiment}, not to {experiment.id}")
    try:
        metric = experiment.metric(gate.metric)
    except KeyError:
        raise BrokenMeasurement(f"{experiment.id} has no metric {gate.metric}") from None
    arms = {arm.id for arm in experiment.arms}
    for arm in (gate.baseline, gate.arm) if gate.is_paired else (gate.arm,):
        if arm is not None and arm not in arms:
            raise BrokenMeasurement(f"{experiment.id} has no arm {arm}")
    if not math.isfinite(gate.margin):
        raise BrokenMeasurement("the margin is not a finite number")
    if gate.is_paired:
        _check_pair(gate, metric)
    return metric


def _check_pair(gate: Gate, metric: Metric) -> None:
    if gate.baseline is None or gate.baseline == gate.arm:
        raise BrokenMeasurement(f"rule {gate.rule} needs a baseline arm of its own")
    if metric.better not in ("lower", "higher") and gate.rule is not Rule.WITHIN:
        raise BrokenMeasurement(f"{metric.id} is context: no direction of it is better")
    if gate.is_ratio and not 0 <= gate.margin < 1:
        raise BrokenMeasurement(f"margin {gate.margin} of a ratio rule is outside [0, 1)")
    if gate.margin < 0:
        raise BrokenMeasurement(f"margin {gate.margin} of a paired rule is negative")
