"""The tuner's policy: a pure state machine from readings to decisions.

::

    NORMAL --(> 40, 2 samples)--> WATCH --(> 80, 2 samples)--> ACT --step--> HOLD
      ^                                                         ^             |
      |                                                         +--(> 80)-----+
      +---- RELAX <--(< 20 for 60 s)--------------------------------- HOLD ---+
                                                                      ^
                                    WATCH --relief (> 40)-------------+

ACT tries one step at a time. A step is measured against the seconds before it and kept only
if it paid; otherwise it is reverted and not tried again for a while, which doubles each time.
Reliefs take nothing that anybody wants, so they are tried as soon as memory is watched, and
are kept unless some cgroup misses what was taken: that they lower the pressure need not show
in seconds in which it rises.
Preparations (fast swap ahead of need) come first, when it is calm; they have nothing to be
measured against and stay until the tuner ends.

Nothing here reads a clock or a file: the same readings give the same decisions, which is what
``hyperbox psi simulate`` lives on. A gap in the readings (the machine slept, the process was
stopped) empties every window: nothing is concluded across it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace

from hyperbox.memory.decisions import Action, Decision, Rules, StepStatus, TunerState
from hyperbox.memory.readings import SECOND_NS, Interval, Reading, between
from hyperbox.memory.trials import Trial, compared, fault, measured, missed

__all__ = ["Policy", "StepState", "decide", "lost", "refused"]


@dataclass(frozen=True)
class StepState:
    """What is known of a step: `not_before_ns` is the end of its back-off."""

    status: StepStatus = StepStatus.IDLE
    failures: int = 0
    not_before_ns: int = 0
    unavailable: str = ""


@dataclass(frozen=True)
class Policy:
    """Everything that the policy remembers between readings.

    Parameters
    ----------
    steps
        By name, in the order in which they are tried.
    preparations
        Names of the steps that are made ahead of need.
    reliefs
        Names of those that take nothing that is wanted.
    """

    steps: Mapping[str, StepState]
    preparations: frozenset[str] = frozenset()
    reliefs: frozenset[str] = frozenset()
    state: TunerState = TunerState.NORMAL
    last: Reading | None = None
    window: tuple[Interval, ...] = ()
    trial: Trial | None = None
    kept: tuple[str, ...] = ()
    above_act: int = 0
    above_watch: int = 0
    below_watch: int = 0
    calm_since_ns: int | None = None
    relapses: int = 0
    restored_ns: int | None = None

    @classmethod
    def of(
        cls, steps: Iterable[str], preparations: Iterable[str] = (), reliefs: Iterable[str] = ()
    ) -> Policy:
        """Return the policy at its beginning; `reliefs` are some of `steps`."""
        ahead = tuple(preparations)
        named = {name: StepState() for name in (*ahead, *steps)}
        return cls(named, frozenset(ahead), frozenset(reliefs))

    def with_step(self, name: str, **changes: object) -> Policy:
        """Return it with a step changed."""
        step = replace(self.steps[name], **changes)  # type: ignore[arg-type]
        return replace(self, steps={**self.steps, name: step})

    def with_unavailable(self, reasons: Mapping[str, str]) -> Policy:
        """Return it with what probing found: why a step cannot be made, or an empty text."""
        steps = {
            name: replace(step, unavailable=reasons.get(name, step.unavailable))
            for name, step in self.steps.items()
        }
        return replace(self, steps=steps)

    def relax_ns(self, rules: Rules) -> int:
        """Return how long it must be calm: twice as long after each relapse, up to 16 times."""
        return int(rules.relax_s * SECOND_NS) << min(self.relapses, 4)


@dataclass(frozen=True)
class _Outcome:
    """A choice before it becomes a decision."""

    policy: Policy
    action: Action = Action.NOTHING
    step: str = ""
    reason: str = ""


def decide(policy: Policy, reading: Reading, rules: Rules) -> tuple[Policy, Decision]:
    """Return the policy after a reading, and what is to be done now.

    The caller carries the decision out; if it cannot, it tells `refused`.
    """
    before = policy.last
    interval = between(before, reading) if before else None
    policy = replace(policy, last=reading)
    if before is not None and before.swaps != reading.swaps:
        outcome = _swaps_changed(policy, before.swaps, reading.swaps)
        return outcome.policy, _decision(reading, outcome, interval, rules)
    if interval is None or interval.end_ns - interval.start_ns > rules.gap_ns:
        outcome = _gap(policy) if before else _first(policy, reading.time_ns)
        return outcome.policy, _decision(reading, outcome, None, rules)
    policy = _counted(policy, interval, rules)
    outcome = _next(policy, reading.time_ns, interval.score(rules.swap_in_floor), rules)
    return outcome.policy, _decision(reading, outcome, interval, rules)


def refused(
    policy: Policy, decision: Decision, reason: str, rules: Rules
) -> tuple[Policy, Decision]:
    """Return the policy after a step could not be made, with the reason on record.

    A refused step is as if it had not been tried, and waits out a back-off. A step that
    could not be undone counts as undone: what undoes it has its own record of it.
    """
    name = decision.step
    state = policy.state
    if decision.action in (Action.APPLY, Action.PREPARE):
        policy = _backed_off(replace(policy, trial=None), name, decision.time_ns, rules)
        state = TunerState.HOLD if policy.kept else TunerState.WATCH
        if decision.action is Action.PREPARE:
            state = decision.state
        policy = replace(policy, state=state)
    reported = replace(decision, state=state, action=Action.REFUSED, reason=reason)
    return policy, reported


def lost(policy: Policy, name: str, rules: Rules) -> Policy:
    """Return the policy after somebody else has undone a step: theirs for a back-off at least."""
    kept = tuple(one for one in policy.kept if one != name)
    trial = policy.trial if policy.trial and policy.trial.step != name else None
    now_ns = policy.last.time_ns if policy.last else 0
    return _backed_off(replace(policy, kept=kept, trial=trial), name, now_ns, rules)


def _decision(
    reading: Reading, outcome: _Outcome, interval: Interval | None, rules: Rules
) -> Decision:
    numbers = (
        (
            interval.score(rules.swap_in_floor),
            interval.memory_some,
            interval.io_some,
            interval.swap_ins,
        )
        if interval
        else ()
    )
    return Decision(
        reading.time_ns,
        outcome.policy.state,
        outcome.action,
        outcome.step,
        outcome.reason,
        *numbers,
    )


def _swaps_changed(policy: Policy, before: frozenset[str], now: frozenset[str]) -> _Outcome:
    """Begin anew with another set of swap areas; a preparation may be possible now, or again."""
    changes = [f"{name} is gone" for name in sorted(before - now)]
    changes += [f"{name} is new" for name in sorted(now - before)]
    reason = "swap areas changed: " + ", ".join(changes)
    steps = {
        name: replace(step, failures=0, not_before_ns=0) for name, step in policy.steps.items()
    }
    return _abandoned(replace(policy, steps=steps), reason)


def _first(policy: Policy, now_ns: int) -> _Outcome:
    return _prepared(policy, now_ns) or _Outcome(policy, reason="first reading")


def _gap(policy: Policy) -> _Outcome:
    return _abandoned(policy, "a gap in the readings: nothing is concluded across it")


def _abandoned(policy: Policy, reason: str) -> _Outcome:
    """Empty every window; a trial that cannot be judged any more is reverted, unblamed."""
    policy = replace(
        policy, window=(), above_act=0, above_watch=0, below_watch=0, calm_since_ns=None
    )
    trial = policy.trial
    if trial is None:
        return _Outcome(policy, reason=reason)
    policy = replace(policy, trial=None).with_step(trial.step, status=StepStatus.IDLE)
    policy = replace(policy, state=TunerState.HOLD if policy.kept else TunerState.WATCH)
    return _Outcome(policy, Action.REVERT, trial.step, f"{reason}; trial not judged")


def _counted(policy: Policy, interval: Interval, rules: Rules) -> Policy:
    """Count the interval into windows and streaks."""
    score = interval.score(rules.swap_in_floor)
    horizon_ns = interval.end_ns - 2 * (int(rules.settle_s * SECOND_NS) + rules.measure_ns)
    window = tuple(one for one in policy.window if one.start_ns >= horizon_ns)
    calm = score < rules.calm
    return replace(
        policy,
        window=(*window, interval),
        above_act=policy.above_act + 1 if score > rules.act else 0,
        above_watch=policy.above_watch + 1 if score > rules.watch else 0,
        below_watch=policy.below_watch + 1 if score <= rules.watch else 0,
        calm_since_ns=(policy.calm_since_ns or interval.start_ns) if calm else None,
    )


def _next(policy: Policy, now_ns: int, score: float, rules: Rules) -> _Outcome:
    if policy.trial is not None:
        return _judged(policy, policy.trial, now_ns, score, rules)
    prepared = _prepared(policy, now_ns)
    if prepared is not None:
        return prepared
    if policy.above_act >= rules.confirm:
        return _act(policy, now_ns, score, rules)
    relieved = _relieved(policy, now_ns, score, rules)
    if relieved is not None:
        return relieved
    if policy.kept:
        return _hold_or_relax(policy, now_ns, score, rules)
    return _watched(policy, score, rules)


def _prepared(policy: Policy, now_ns: int) -> _Outcome | None:
    """Make the next preparation; what was measured before it counts no more."""
    ready = _first_ready(policy, now_ns, policy.preparations)
    if ready is None or policy.state is TunerState.RELAX:
        return None
    policy = replace(policy.with_step(ready, status=StepStatus.PREPARED), window=())
    return _Outcome(policy, Action.PREPARE, ready, "ahead of need")


def _relieved(policy: Policy, now_ns: int, score: float, rules: Rules) -> _Outcome | None:
    """Try the next relief, if memory is to be watched."""
    ready = _first_ready(policy, now_ns, policy.reliefs)
    before = measured(policy.window, rules)
    if policy.above_watch < rules.confirm or ready is None or before is None:
        return None
    why = f"score {score:.1f} above {rules.watch:g} for {policy.above_watch} readings"
    return _tried(policy, Trial(ready, now_ns, before), why)


def _watched(policy: Policy, score: float, rules: Rules) -> _Outcome:
    if policy.above_watch >= rules.confirm:
        reason = f"score {score:.1f} above {rules.watch:g}: watching"
        return _Outcome(replace(policy, state=TunerState.WATCH), reason=reason)
    if policy.state is TunerState.NORMAL or policy.below_watch < rules.confirm:
        return _Outcome(policy, reason=f"score {score:.1f}")
    reason = f"score {score:.1f}, not above {rules.watch:g} for {policy.below_watch} readings"
    return _Outcome(replace(policy, state=TunerState.NORMAL), reason=reason)


def _act(policy: Policy, now_ns: int, score: float, rules: Rules) -> _Outcome:
    """Try the next step that is ready."""
    why = f"score {score:.1f} above {rules.act:g} for {policy.above_act} readings"
    if policy.state is not TunerState.ACT and policy.restored_ns is not None:
        soon = now_ns - policy.restored_ns <= int(rules.relapse_s * SECOND_NS)
        policy = replace(policy, relapses=policy.relapses + 1 if soon else 0, restored_ns=None)
    policy = replace(policy, state=TunerState.ACT)
    before = measured(policy.window, rules)
    ready = _first_ready(policy, now_ns, policy.steps.keys() - policy.preparations)
    if ready is None:
        return _Outcome(policy, reason=f"{why}; {_nothing_left(policy, now_ns)}")
    if before is None:
        return _Outcome(policy, reason=f"{why}; measuring before {ready}")
    return _tried(policy, Trial(ready, now_ns, before), why)


def _tried(policy: Policy, trial: Trial, why: str) -> _Outcome:
    policy = replace(policy, trial=trial, state=TunerState.HOLD)
    policy = policy.with_step(trial.step, status=StepStatus.TRIAL)
    return _Outcome(policy, Action.APPLY, trial.step, why)


def _judged(policy: Policy, trial: Trial, now_ns: int, score: float, rules: Rules) -> _Outcome:
    """Keep or revert the step on trial, when it has been measured long enough."""
    settled_ns = trial.since_ns + int(rules.settle_s * SECOND_NS)
    since = [one for one in policy.window if one.start_ns >= settled_ns - rules.late_ns]
    after = measured(since, rules)
    if after is None:
        return _Outcome(policy, reason=f"score {score:.1f}; {trial.step} is on trial")
    judge = missed if trial.step in policy.reliefs else fault
    wrong = judge(trial.before, after, rules)
    gain = compared(trial.before, after, rules)
    policy = replace(policy, trial=None, above_act=min(policy.above_act, rules.confirm))
    if wrong:
        policy = _backed_off(policy, trial.step, now_ns, rules)
        policy = replace(policy, state=_resting(policy, rules))
        return _Outcome(policy, Action.REVERT, trial.step, f"{gain}; {wrong}")
    kept = replace(policy, kept=(*policy.kept, trial.step), state=TunerState.HOLD)
    kept = kept.with_step(trial.step, status=StepStatus.KEPT, failures=0)
    return _Outcome(kept, Action.KEEP, trial.step, gain)


def _hold_or_relax(policy: Policy, now_ns: int, score: float, rules: Rules) -> _Outcome:
    """Hold what is kept; give it back one step a reading when it has been calm for long."""
    if policy.state is TunerState.RELAX and policy.above_watch < rules.confirm:
        return _restored(policy, now_ns, "calm")
    since = policy.calm_since_ns
    if since is not None and now_ns - since >= policy.relax_ns(rules):
        calm = f"score below {rules.calm:g} for {(now_ns - since) / SECOND_NS:.0f} s"
        return _restored(policy, now_ns, calm)
    holding = replace(policy, state=TunerState.HOLD)
    return _Outcome(holding, reason=f"score {score:.1f}; holding {', '.join(policy.kept)}")


def _restored(policy: Policy, now_ns: int, reason: str) -> _Outcome:
    """Give back the step kept last."""
    *rest, name = policy.kept
    policy = policy.with_step(name, status=StepStatus.IDLE)
    state = TunerState.RELAX if rest else TunerState.NORMAL
    policy = replace(policy, kept=tuple(rest), state=state, restored_ns=now_ns)
    return _Outcome(policy, Action.RESTORE, name, reason)


def _resting(policy: Policy, rules: Rules) -> TunerState:
    if policy.kept:
        return TunerState.HOLD
    return TunerState.WATCH if policy.above_watch else TunerState.NORMAL


def _backed_off(policy: Policy, name: str, now_ns: int, rules: Rules) -> Policy:
    failures = policy.steps[name].failures + 1
    wait_s = min(rules.backoff_s * 2 ** min(failures - 1, 20), rules.longest_backoff_s)
    return policy.with_step(
        name,
        status=StepStatus.IDLE,
        failures=failures,
        not_before_ns=now_ns + int(wait_s * SECOND_NS),
    )


def _first_ready(policy: Policy, now_ns: int, among: Set[str]) -> str | None:
    for name, step in policy.steps.items():
        idle = step.status is StepStatus.IDLE and not step.unavailable
        if name in among and idle and step.not_before_ns <= now_ns:
            return name
    return None


def _nothing_left(policy: Policy, now_ns: int) -> str:
    waiting = [
        (step.not_before_ns - now_ns) / SECOND_NS
        for name, step in policy.steps.items()
        if name not in policy.preparations
        and step.status is StepStatus.IDLE
        and not step.unavailable
    ]
    if waiting:
        return f"every step waits out its back-off, the first for {min(waiting):.0f} s more"
    return "every step that can be made is kept" if policy.kept else "no step can be made here"
