"""Deciding gates: samples of one cell in, one verdict out. Pure.

A gate is decided on blocks, never on pooled iterations or a single number. Broken
measurements give ERROR and never become samples. At each planned look the exact
interval of the location is held against the target's limit: wholly on the good side is
PASS, wholly on the bad side FAIL, anything else INCONCLUSIVE. The first look that
decides stands, so blocks added for the sake of another gate change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hyperbox.errors import ExitCode
from hyperbox.harness.model import (
    Experiment,
    Gate,
    Lane,
    Metric,
    Outcome,
    Rule,
    Sample,
    Verdict,
)
from hyperbox.harness.verdicts.statistics import (
    LOOK_ALPHA,
    LOOKS,
    Location,
    locate,
    next_look,
    p_above,
    p_below,
)
from hyperbox.harness.verdicts.wording import (
    EXCEEDS_BAND,
    number,
    relative,
    relative_interval,
    with_unit,
)

__all__ = ["broken", "decide", "exit_code", "limit_of", "settled", "skipped"]


class _BrokenMeasurement(Exception):
    """The samples or the declaration cannot carry a verdict; the text says why."""


@dataclass(frozen=True)
class _Target:
    """Where a good location lies: at or below `limit`, or (`sign` -1) at or above it.

    `limit` is on the scale of the decided values: log ratio, or the metric's unit.
    """

    limit: float
    sign: int
    limit_counts: bool = True

    def is_met(self, location: Location) -> bool:
        worst = location.high if self.sign > 0 else -location.low
        limit = self.limit * self.sign
        return worst <= limit if self.limit_counts else worst < limit

    def is_missed(self, location: Location) -> bool:
        best = location.low if self.sign > 0 else -location.high
        limit = self.limit * self.sign
        return best > limit if self.limit_counts else best >= limit

    def p_met(self, values: Sequence[float]) -> float:
        test = p_below if self.sign > 0 else p_above
        return test(values, self.limit, limit_counts=self.limit_counts)

    def p_missed(self, values: Sequence[float]) -> float:
        test = p_above if self.sign > 0 else p_below
        return test(values, self.limit, limit_counts=not self.limit_counts)


def decide(
    gate: Gate, experiment: Experiment, kernel: str, lane: Lane, samples: Sequence[Sample]
) -> Verdict:
    """Decide a gate on the samples of one cell.

    Parameters
    ----------
    samples
        All samples of the cell; other arms and metrics are ignored. Every block among
        them must hold exactly one value of each arm that the gate needs.
    """
    try:
        metric = _declared_metric(gate, experiment)
        if gate.rule is Rule.COUNT:
            worst = _level_values(gate, samples)
            return _decide_count(gate, metric, kernel, lane, worst)
        values = _ratio_values(gate, samples) if gate.is_ratio else _level_values(gate, samples)
        target = _target(gate, metric)
    except _BrokenMeasurement as broken_measurement:
        return broken(gate, kernel, lane, str(broken_measurement))
    return _decide_location(gate, metric, kernel, lane, values, target)


def settled(verdict: Verdict, n: int) -> bool:
    """Whether no further block (after `n`) can change this verdict.

    INCONCLUSIVE is settled after the last planned look only; that an experiment may
    allow fewer blocks is the engine's affair.
    """
    return verdict.outcome is not Outcome.INCONCLUSIVE or next_look(n) is None


def skipped(gate: Gate, kernel: str, lane: Lane, reason: str) -> Verdict:
    """Give the SKIP of a gate that this kernel cannot answer, with the reason."""
    return Verdict(gate.id, kernel, lane, Outcome.SKIP, reason)


def broken(gate: Gate, kernel: str, lane: Lane, reason: str) -> Verdict:
    """Give the ERROR of a gate whose measurement broke; it says nothing about the target."""
    return Verdict(gate.id, kernel, lane, Outcome.ERROR, reason)


def exit_code(verdicts: Iterable[Verdict], *, strict: bool) -> ExitCode:
    """Give the exit code of a run.

    Any ERROR is a harness error, even beside a FAIL: the run is not complete. A run that
    decided nothing (no PASS and no FAIL) is never a pass: it is INCONCLUSIVE if `strict`
    and something was measured, else a harness error.
    """
    outcomes = {verdict.outcome for verdict in verdicts}
    if Outcome.ERROR in outcomes:
        return ExitCode.HARNESS_ERROR
    if Outcome.FAIL in outcomes:
        return ExitCode.GATE_FAILED
    if strict and Outcome.INCONCLUSIVE in outcomes:
        return ExitCode.INCONCLUSIVE
    return ExitCode.PASS if Outcome.PASS in outcomes else ExitCode.HARNESS_ERROR


def limit_of(gate: Gate, metric: Metric) -> float:
    """Give the target's limit in the verdict's terms: relative change, or the metric's unit."""
    if gate.rule is Rule.REDUCES_AT_LEAST:
        return -gate.margin
    if gate.rule is Rule.NON_INFERIOR:
        return -gate.margin if metric.better == "higher" else gate.margin
    return gate.margin


def _declared_metric(gate: Gate, experiment: Experiment) -> Metric:
    """Give the gate's metric after checking that gate and experiment fit together."""
    if gate.experiment != experiment.id:
        raise _BrokenMeasurement(f"gate belongs to {gate.experiment}, not to {experiment.id}")
    try:
        metric = experiment.metric(gate.metric)
    except KeyError:
        raise _BrokenMeasurement(f"{experiment.id} has no metric {gate.metric}") from None
    arms = {arm.id for arm in experiment.arms}
    for arm in _arms(gate):
        if arm not in arms:
            raise _BrokenMeasurement(f"{experiment.id} has no arm {arm}")
    if not math.isfinite(gate.margin):
        raise _BrokenMeasurement("the margin is not a finite number")
    if gate.is_ratio:
        if gate.baseline is None or gate.baseline == gate.arm:
            raise _BrokenMeasurement(f"rule {gate.rule} needs a baseline arm of its own")
        if metric.better not in ("lower", "higher"):
            raise _BrokenMeasurement(f"{metric.id} is context: no direction of it is better")
        if not 0 <= gate.margin < 1:
            raise _BrokenMeasurement(f"margin {gate.margin} of a ratio rule is outside [0, 1)")
    return metric


def _arms(gate: Gate) -> tuple[str, ...]:
    """Give the arms whose values the gate needs, baseline first."""
    if gate.is_ratio and gate.baseline is not None:
        return (gate.baseline, gate.arm)
    return (gate.arm,)


def _values_by_block(gate: Gate, samples: Sequence[Sample]) -> dict[int, dict[str, float]]:
    """Give block -> arm -> value in block order, complete for the arms of the gate."""
    arms = _arms(gate)
    blocks: dict[int, dict[str, float]] = {sample.block: {} for sample in samples}
    for sample in samples:
        if sample.metric != gate.metric or sample.arm not in arms:
            continue
        block = blocks[sample.block]
        if sample.arm in block:
            raise _BrokenMeasurement(
                f"{gate.metric} of arm {sample.arm} was measured twice in block {sample.block}"
            )
        if not math.isfinite(sample.value):
            raise _BrokenMeasurement(
                f"{gate.metric} of arm {sample.arm} is {sample.value} in block {sample.block}"
            )
        block[sample.arm] = sample.value
    if not blocks:
        raise _BrokenMeasurement("nothing was measured")
    for number_, block in blocks.items():
        for arm in arms:
            if arm not in block:
                raise _BrokenMeasurement(
                    f"{gate.metric} of arm {arm} is missing in block {number_}"
                )
    return dict(sorted(blocks.items()))


def _level_values(gate: Gate, samples: Sequence[Sample]) -> list[float]:
    return [block[gate.arm] for block in _values_by_block(gate, samples).values()]


def _ratio_values(gate: Gate, samples: Sequence[Sample]) -> list[float]:
    """Give d = log(tuned / baseline) per block."""
    values = []
    baseline, tuned = _arms(gate)
    for number_, block in _values_by_block(gate, samples).items():
        for arm in (baseline, tuned):
            if block[arm] <= 0:
                raise _BrokenMeasurement(
                    f"{gate.metric} of arm {arm} is {number(block[arm])} in block {number_}: "
                    "a ratio needs positive values"
                )
        # log(B/A), not log B - log A: a ratio equal to the margin must stay equal.
        ratio = block[tuned] / block[baseline]
        if not 0 < ratio < math.inf:
            raise _BrokenMeasurement(
                f"{gate.metric} of block {number_} has a ratio beyond any measurement: "
                f"{block[baseline]:g} against {block[tuned]:g}"
            )
        values.append(math.log(ratio))
    return values


def _target(gate: Gate, metric: Metric) -> _Target:
    if gate.rule is Rule.REDUCES_AT_LEAST:
        return _Target(math.log(1 - gate.margin), +1)
    if gate.rule is Rule.NON_INFERIOR:
        limit = math.log(1 + limit_of(gate, metric))
        return _Target(limit, -1 if metric.better == "higher" else +1, limit_counts=False)
    return _Target(gate.margin, +1 if gate.rule is Rule.AT_MOST else -1)


def _decide_count(
    gate: Gate, metric: Metric, kernel: str, lane: Lane, values: Sequence[float]
) -> Verdict:
    worst = max(values)
    over = sum(1 for value in values if value > gate.margin)
    worst_text, limit_text = with_unit(worst, metric.unit), with_unit(gate.margin, metric.unit)
    if over:
        reason = f"{over} of {len(values)} blocks exceed {limit_text}; the worst is {worst_text}"
    else:
        reason = f"all {len(values)} blocks are at or below {limit_text}; the worst is {worst_text}"
    return Verdict(
        gate.id,
        kernel,
        lane,
        Outcome.FAIL if over else Outcome.PASS,
        reason,
        n=len(values),
        estimate=worst,
        details={"limit": gate.margin, "smallest": min(values), "largest": worst},
    )


def _decide_location(
    gate: Gate,
    metric: Metric,
    kernel: str,
    lane: Lane,
    values: Sequence[float],
    target: _Target,
) -> Verdict:
    outcome, used = _first_decision(values, target)
    location = locate(used)
    shown = _in_verdict_terms(location, ratio=gate.is_ratio)
    smallest, largest = min(used), max(used)
    if gate.is_ratio:
        smallest, largest = math.expm1(smallest), math.expm1(largest)
    has_interval = location.n > 1
    return Verdict(
        gate.id,
        kernel,
        lane,
        outcome,
        _reason(gate, metric, outcome, shown),
        n=location.n,
        estimate=shown.estimate,
        low=shown.low if has_interval else None,
        high=shown.high if has_interval else None,
        level=shown.level if has_interval else None,
        remarks=_remarks(gate, metric, outcome, shown, (smallest, largest), len(values)),
        details={
            "limit": limit_of(gate, metric),
            "p_met": target.p_met(used),
            "p_missed": target.p_missed(used),
            "alpha": LOOK_ALPHA,
            "measured": float(len(values)),
            "smallest": smallest,
            "largest": largest,
        },
    )


def _first_decision(values: Sequence[float], target: _Target) -> tuple[Outcome, Sequence[float]]:
    """Give the outcome of the first look that decides, and the values it looked at.

    Without a decision these are the values of the last look reached, or all of them
    before the first look.
    """
    used = values
    for look in LOOKS:
        if look > len(values):
            break
        used = values[:look]
        location = locate(used)
        if target.is_met(location):
            return Outcome.PASS, used
        if target.is_missed(location):
            return Outcome.FAIL, used
    return Outcome.INCONCLUSIVE, used


def _in_verdict_terms(location: Location, *, ratio: bool) -> Location:
    if not ratio:
        return location
    return Location(
        estimate=math.expm1(location.estimate),
        low=math.expm1(location.low),
        high=math.expm1(location.high),
        level=location.level,
        n=location.n,
    )


def _reason(gate: Gate, metric: Metric, outcome: Outcome, shown: Location) -> str:
    limit = limit_of(gate, metric)
    if gate.is_ratio:
        limit_text = relative(limit)
        found = relative_interval(shown.estimate, shown.low, shown.high)
    else:
        limit_text = with_unit(limit, metric.unit)
        found = (
            f"{with_unit(shown.estimate, metric.unit)} ({number(shown.low)} … {number(shown.high)})"
        )
    if shown.n < LOOKS[0]:
        return f"{shown.n} of the {LOOKS[0]} blocks that a verdict needs; so far {found}"
    sides = {
        Outcome.PASS: "lies wholly on the good side of",
        Outcome.FAIL: "lies wholly on the wrong side of",
        Outcome.INCONCLUSIVE: "spans",
    }
    return f"{found} {sides[outcome]} the limit {limit_text}"


def _remarks(
    gate: Gate,
    metric: Metric,
    outcome: Outcome,
    shown: Location,
    spread: tuple[float, float],
    measured: int,
) -> tuple[str, ...]:
    remarks = []
    if outcome is Outcome.PASS and _exceeds_band(gate, shown):
        remarks.append(EXCEEDS_BAND)
    smallest, largest = spread
    if shown.n > 1 and smallest == largest:
        remarks.append(f"all {shown.n} perturbed starts gave the same value")
    elif shown.n > 1:
        low, high = (
            (relative(smallest), relative(largest))
            if gate.is_ratio
            else (with_unit(smallest, metric.unit), with_unit(largest, metric.unit))
        )
        remarks.append(f"perturbed starts spread from {low} to {high}")
    if measured > shown.n:
        remarks.append(f"decided on the first {shown.n} of {measured} blocks (planned look)")
    return tuple(remarks)


def _exceeds_band(gate: Gate, shown: Location) -> bool:
    if gate.band_upper is None:
        return False
    if gate.rule is Rule.REDUCES_AT_LEAST:
        return -shown.estimate > gate.band_upper
    return gate.rule is Rule.AT_LEAST and shown.estimate > gate.band_upper
