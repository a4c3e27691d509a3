"""Where a good location lies, and how a claim about it is tested: gates as numbers. Pure."""

from __future__ import annotations

import math

from hyperbox.harness.model import Experiment, Gate, Lane, Metric, Rule
from hyperbox.harness.statistics.design import ONE_LIMIT, TWO_LIMITS, InferenceKind, Target
from hyperbox.harness.verdicts.blocks import BrokenMeasurement

__all__ = [
    "EXACT_RESOLUTION",
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


def pairs_kind(lane: Lane) -> InferenceKind:
    """Return what the estimate of pairs rests on in a lane; see `target_of`."""
    return InferenceKind.SIGN if lane is Lane.EXACT else InferenceKind.SIGNED_RANK


def target_of(gate: Gate, metric: Metric, lane: Lane) -> Target:
    """Return the target of any gate but a count's.

    Levels are tested by the sign test and estimated by their median: it needs nothing but
    independent blocks.

    Differences within randomly ordered pairs are symmetric around a constant effect
    whatever the machine does over time. So in the host's time pairs are estimated by Hodges
    and Lehmann with the interval of the signed ranks, which must lie beyond the
    limit. Yet if one arm alone is skewed or has two modes, the pairs are not symmetric, and
    signed ranks by themselves err on the median in 5 to 9 % of cells by 32 blocks; so the
    exact sign test must agree. At 8 blocks both are one test; at 32 the smallest
    effect found with 80 % power grows from 0.65 to 0.72 deviations.

    In the exact lane blocks are independent by construction, and starts change the effect
    itself: a loop that takes one of two times, by where its memory came to lie, gives
    differences of three values. So pairs are tested by signs and estimated by their median there.
    """
    low, high = limits_of(gate, metric)
    if gate.is_ratio:
        low, high = (None if edge is None else math.log(1 + edge) for edge in (low, high))
    resolution = None
    if lane is Lane.EXACT:
        resolution = EXACT_RESOLUTION if gate.is_ratio else 0.0
    return Target(
        low,
        high,
        limit_counts=gate.rule is not Rule.NON_INFERIOR,
        kind=pairs_kind(lane) if gate.is_paired else InferenceKind.SIGN,
        alphas=TWO_LIMITS if gate.rule is Rule.WITHIN else ONE_LIMIT,
        resolution=resolution,
    )


def limits_of(gate: Gate, metric: Metric) -> tuple[float | None, float | None]:
    """Return the lower and the upper limit of the target in the verdict's terms.

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
    """Return the target's limit in the verdict's terms: relative change, or the metric's unit.

    A target with two limits gives the upper one; see `limits_of`.
    """
    if gate.rule is Rule.REDUCES_AT_LEAST:
        return -gate.margin
    if gate.rule is Rule.NON_INFERIOR:
        return -gate.margin if metric.better == "higher" else gate.margin
    return gate.margin


def checked_metric(gate: Gate, experiment: Experiment) -> Metric:
    """Return the gate's metric after checking that gate and experiment fit together.

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
