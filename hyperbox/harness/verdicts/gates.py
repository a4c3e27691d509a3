"""Deciding gates: samples of one cell in, one verdict out. Pure.

A gate is decided on blocks, never on pooled iterations or a single number. Broken
measurements give ERROR and never become samples. At each planned look the exact
interval of the location is compared with the target's limits: wholly on the good side is
PASS, wholly on the bad side FAIL, anything else INCONCLUSIVE. The first look that
decides stands, so blocks added for the sake of another gate change nothing.

What is judged is the median change (or level) of the blocks. Host time: of the blocks
measured; whether a machine that drifts would show the same tomorrow is beyond any number
of blocks. Exact lane: of all starts, since starts are drawn independently.

Every claim needs the exact sign test, which assumes no shape. Pairs in the host's time are
estimated by Hodges and Lehmann's estimator, and need the exact signed-rank test as well.

The exact lane repeats to the nanosecond, so that its noise is only what the perturbed
starts show. There a verdict also needs the estimate to lie further from the limit than
the starts spread, and a ratio further than what two boots differ by: without noise, any
difference at all would be "significant". Starts that all agree are decided by that, and
a remark says so.

Numbers in `Verdict.details`, in the verdict's terms unless said otherwise: ``limit`` (and
``limit_low`` where there are two), ``smallest`` and ``largest`` block, ``measured`` blocks,
``p_met`` and ``p_missed`` of the look that counts (of the test that is convinced least),
``alpha`` of that look, ``p_met_all_looks`` and ``p_missed_all_looks`` (allowing for all looks
so far), and those of `hyperbox.harness.verdicts.diagnosis`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

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
from hyperbox.harness.statistics.design import ALPHA, LOOKS, InferenceKind, Target, next_look
from hyperbox.harness.statistics.location import Location, locate
from hyperbox.harness.statistics.sequential import (
    alpha_at,
    first_decisions,
    p_met,
    p_missed,
    through_all_looks,
)
from hyperbox.harness.verdicts.blocks import BrokenMeasurement, DecidedBlock, decided_blocks
from hyperbox.harness.verdicts.diagnosis import diagnose
from hyperbox.harness.verdicts.explanation import VerdictExplanation
from hyperbox.harness.verdicts.targets import checked_metric, limit_of, limits_of, target_of
from hyperbox.harness.verdicts.wording import with_unit

__all__ = ["broken", "decide", "exit_code", "settled", "skipped"]

_OUTCOMES = {1: Outcome.PASS, -1: Outcome.FAIL, 0: Outcome.INCONCLUSIVE}


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
        metric = checked_metric(gate, experiment)
        blocks = decided_blocks(gate, samples)
    except BrokenMeasurement as broken_measurement:
        return broken(gate, kernel, lane, str(broken_measurement))
    if gate.rule is Rule.COUNT:
        return _decide_count(gate, metric, kernel, lane, [block.value for block in blocks])
    target = target_of(gate, metric, lane)
    return _decide_location(gate, experiment, kernel, lane, blocks, target)


def settled(verdict: Verdict, n: int, *, family: int = 1) -> bool:
    """Whether no further block (after `n`) can change what this verdict is good for.

    INCONCLUSIVE is settled after the last planned look only; that an experiment may
    allow fewer blocks is the engine's affair. A FAIL that is to stand for a release of
    `family` verdicts is settled once it is strong enough to be one of them.
    """
    if next_look(n) is None:
        return True
    if verdict.outcome is Outcome.FAIL and family > 1:
        return verdict.details.get("p_missed_all_looks", 0.0) * family <= ALPHA
    return verdict.outcome is not Outcome.INCONCLUSIVE


def skipped(gate: Gate, kernel: str, lane: Lane, reason: str) -> Verdict:
    """Return the SKIP of a gate that this kernel cannot answer, with the reason."""
    return Verdict(gate.id, kernel, lane, Outcome.SKIP, reason)


def broken(gate: Gate, kernel: str, lane: Lane, reason: str) -> Verdict:
    """Return the ERROR of a gate whose measurement broke; it says nothing about the target."""
    return Verdict(gate.id, kernel, lane, Outcome.ERROR, reason)


def exit_code(verdicts: Iterable[Verdict], *, strict: bool) -> ExitCode:
    """Return the exit code of a run.

    Any ERROR is a harness error, even beside a FAIL: the run is not complete. A run that
    decided nothing (no PASS and no FAIL) is never a pass: it is INCONCLUSIVE if `strict`
    and something was measured, else a harness error. A SKIP for which no other gate stands in
    is INCONCLUSIVE if `strict`.
    """
    given = tuple(verdicts)
    outcomes = {verdict.outcome for verdict in given}
    if Outcome.ERROR in outcomes:
        return ExitCode.HARNESS_ERROR
    if Outcome.FAIL in outcomes:
        return ExitCode.GATE_FAILED
    holes = Outcome.PASS in outcomes and any(verdict.is_hole for verdict in given)
    if strict and (Outcome.INCONCLUSIVE in outcomes or holes):
        return ExitCode.INCONCLUSIVE
    return ExitCode.PASS if Outcome.PASS in outcomes else ExitCode.HARNESS_ERROR


def _decide_count(
    gate: Gate, metric: Metric, kernel: str, lane: Lane, values: Sequence[float]
) -> Verdict:
    worst = max(values)
    over = sum(1 for value in values if value > gate.margin)
    worst_text, limit_text = with_unit(worst, metric.unit), with_unit(gate.margin, metric.unit)
    if len(values) == 1:
        reason = f"the one block is {worst_text}: {'above' if over else 'at or below'} {limit_text}"
    elif over:
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
    experiment: Experiment,
    kernel: str,
    lane: Lane,
    blocks: Sequence[DecidedBlock],
    target: Target,
) -> Verdict:
    values = [block.value for block in blocks]
    decisions = first_decisions(np.array([values]), target)
    outcome, used = _OUTCOMES[int(decisions.side[0])], values[: int(decisions.n[0])]
    location = locate(used, alpha_at(len(used), target), target.kind)
    shown = _in_verdict_terms(location, ratio=gate.is_ratio)
    ends = min(used), max(used)
    smallest, largest = (math.expm1(end) if gate.is_ratio else end for end in ends)
    explanation = VerdictExplanation(
        gate,
        experiment.metric(gate.metric),
        outcome,
        shown,
        (smallest, largest),
        *_leaning(outcome, used, target),
    )
    diagnosis = diagnose(gate, blocks, target, experiment.blocks, outcome)
    has_interval = location.n > 1
    return Verdict(
        gate.id,
        kernel,
        lane,
        outcome,
        explanation.reason(),
        n=location.n,
        estimate=shown.estimate,
        low=shown.low if has_interval else None,
        high=shown.high if has_interval else None,
        level=shown.level if has_interval else None,
        remarks=explanation.remarks(len(values)) + diagnosis.remarks,
        details={
            **_limits(gate, explanation.metric),
            **_p_values(values, used, target),
            "measured": float(len(values)),
            "smallest": smallest,
            "largest": largest,
            **diagnosis.details,
        },
    )


def _leaning(outcome: Outcome, used: Sequence[float], target: Target) -> tuple[Outcome, int | None]:
    """Return what the interval alone says, and how many blocks stand against it if they do.

    They do where the interval is the signed ranks'; a sign test's own is refused by the
    spread of the starts only: single blocks do not have it.
    """
    if outcome is not Outcome.INCONCLUSIVE or len(used) not in LOOKS:
        return outcome, None
    alpha, own = alpha_at(len(used), target), (target.kind,)
    n, good = len(used), sum(target.holds(value) for value in used)
    above = sum(target.high is not None and value > target.high for value in used)
    bad = n - good if None in (target.low, target.high) else max(above, n - good - above)
    for leaning, p, against in (
        (Outcome.PASS, p_met(used, target, own), n - good),
        (Outcome.FAIL, p_missed(used, target, own), n - bad),
    ):
        if p <= alpha:
            return leaning, None if target.kind is InferenceKind.SIGN else against
    return outcome, None


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


def _limits(gate: Gate, metric: Metric) -> dict[str, float]:
    low, high = limits_of(gate, metric)
    both = {"limit_low": low} if low is not None and high is not None else {}
    return {"limit": limit_of(gate, metric), **both}


def _p_values(values: Sequence[float], used: Sequence[float], target: Target) -> dict[str, float]:
    met, missed = through_all_looks(values, target)
    return {
        "p_met": p_met(used, target),
        "p_missed": p_missed(used, target),
        "alpha": alpha_at(len(used), target),
        "p_met_all_looks": met,
        "p_missed_all_looks": missed,
    }
