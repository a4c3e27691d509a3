"""The swap tuner: carries out what the policy decides, and takes everything back at the end.

One caller steps it; any number of readers take its `status`, which is replaced whole. With
`dry_run` the policy decides as if its steps were made, and nothing is changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from hyperbox.errors import HyperboxError
from hyperbox.memory.actuators import Actuator
from hyperbox.memory.decisions import Action, Decision, Rules, StepStatus, TunerState
from hyperbox.memory.policy import Policy, decide, lost, refused
from hyperbox.memory.readings import Reading

__all__ = ["StepView", "Tuner", "TunerStatus"]

_TRAIL = 50  # decisions that the status keeps


@dataclass(frozen=True)
class StepView:
    """A step as its readers see it; `unavailable` says why it cannot be made."""

    name: str
    title: str
    status: StepStatus
    unavailable: str
    failures: int


@dataclass(frozen=True)
class TunerStatus:
    """What the tuner is doing; never changes. `trail` is the last decisions, oldest first."""

    state: TunerState = TunerState.NORMAL
    dry_run: bool = False
    steps: tuple[StepView, ...] = ()
    last: Decision | None = None
    trail: tuple[Decision, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {
            "state": str(self.state),
            "dry_run": self.dry_run,
            "score": round(self.last.score, 2) if self.last else None,
            "reason": self.last.reason if self.last else None,
            "steps": [
                {
                    "name": step.name,
                    "title": step.title,
                    "status": str(step.status),
                    "unavailable": step.unavailable or None,
                    "failures": step.failures,
                }
                for step in self.steps
            ],
            "decisions": [decision.as_json() for decision in self.trail],
        }


class Tuner:
    """Steps the policy with each reading and makes what it decides.

    Parameters
    ----------
    steps, preparations
        What can be tried, in order, and what is made ahead of need.
    reliefs
        Names of the steps that take nothing that is wanted (`hyperbox.memory.policy`).
    swaps
        Gives the names of the swap areas now, to tell a change of ours from somebody's.
    dry_run
        Decide only.
    found
        What was found, or put in order, before the start: goes with the first decision.
    """

    def __init__(
        self,
        steps: Sequence[Actuator],
        preparations: Sequence[Actuator] = (),
        *,
        reliefs: Collection[str] = (),
        rules: Rules | None = None,
        swaps: Callable[[], frozenset[str]] | None = None,
        dry_run: bool = False,
        found: Sequence[str] = (),
    ) -> None:
        self.rules = rules or Rules()
        self._dry_run = dry_run
        self._swaps = swaps
        self._found = tuple(found)
        self._actuators: Mapping[str, Actuator] = {one.name: one for one in (*preparations, *steps)}
        self._policy = Policy.of(
            [step.name for step in steps], [one.name for one in preparations], reliefs
        )
        self._made: list[str] = []  # in order; undone backwards
        self._left: list[str] = []
        self._probe()
        self._status = TunerStatus()
        self._publish(None)

    def __enter__(self) -> Tuner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def state(self) -> TunerState:
        """Where the tuner stands."""
        return self._policy.state

    @property
    def made(self) -> tuple[str, ...]:
        """The steps in force, in the order in which they were made."""
        return tuple(self._made)

    @property
    def left(self) -> tuple[str, ...]:
        """What could not be put back, each with its reason; it stays on record."""
        return tuple(self._left)

    def status(self) -> TunerStatus:
        """Return what it is doing; takes no lock."""
        return self._status

    def step(self, reading: Reading) -> Decision:
        """Decide on a reading and do what was decided."""
        before = self._policy
        found = (*self._found, *self._impossible()) if before.last is None else ()
        losses = self._noticed_losses()
        self._policy, decision = decide(self._policy, reading, self.rules)
        decision = self._carried_out(decision)
        decision = replace(decision, changes=(*found, *losses, *decision.changes))
        swapped = before.last is not None and before.last.swaps != reading.swaps
        if swapped or decision.noteworthy or self._policy.state is not before.state:
            self._probe()
        self._tick(made_now=decision.step if decision.action is Action.APPLY else "")
        self._publish(decision)
        return decision

    def close(self) -> tuple[Decision, ...]:
        """Take everything back, the last step first; return what was done.

        What cannot be undone stays in the journal for ``hyperbox doctor --repair``. It may
        be called again.
        """
        last = self._status.last
        calm = last is None or last.score < self.rules.calm
        done = []
        for name in reversed(self._made.copy()):
            base = last or Decision(0, self.state, Action.NOTHING, "", "")
            decision = replace(base, action=Action.RESTORE, step=name, reason="the tuner ends")
            done.append(self._undone(decision, calm=calm))
            self._publish(done[-1])
        return tuple(done)

    def _carried_out(self, decision: Decision) -> Decision:
        if decision.action in (Action.APPLY, Action.PREPARE):
            return self._applied(decision)
        if decision.action in (Action.REVERT, Action.RESTORE):
            return self._undone(decision, calm=decision.action is Action.RESTORE)
        return decision

    def _applied(self, decision: Decision) -> Decision:
        if self._dry_run:
            return decision
        self._made.append(decision.step)  # before: a signal may come in between
        try:
            changes = self._actuators[decision.step].apply()
        except HyperboxError as error:
            self._made.remove(decision.step)
            self._policy, reported = refused(self._policy, decision, error.message, self.rules)
            return reported
        self._expect_swaps()
        return replace(decision, changes=changes)

    def _undone(self, decision: Decision, *, calm: bool) -> Decision:
        if decision.step not in self._made:  # dry run, or lost
            return decision
        try:
            changes = self._actuators[decision.step].revert(calm=calm)
            self._made.remove(decision.step)
        except HyperboxError as error:
            self._made.remove(decision.step)
            self._left.append(f"{decision.step}: {error.message}")
            reason = f"{decision.reason}; not wholly put back: {error.message}"
            return replace(decision, reason=reason)
        self._expect_swaps()
        return replace(decision, changes=changes)

    def _impossible(self) -> tuple[str, ...]:
        """Say which preparations cannot be made here, and why: nobody would ask for them again."""
        steps = self._policy.steps
        return tuple(
            f"{name} cannot be made: {steps[name].unavailable}"
            for name in steps
            if name in self._policy.preparations and steps[name].unavailable
        )

    def _noticed_losses(self) -> tuple[str, ...]:
        """Forget steps that somebody else has undone; say which."""
        losses = [name for name in self._made if self._actuators[name].lost()]
        for name in losses:
            self._made.remove(name)
            self._policy = lost(self._policy, name, self.rules)
            with contextlib.suppress(HyperboxError):  # only its records are closed here
                self._actuators[name].revert(calm=True)
        return tuple(f"{name} was undone by somebody else and is left alone" for name in losses)

    def _expect_swaps(self) -> None:
        """Take the swap areas of now as known: what changed them was this tuner."""
        if self._swaps is not None and self._policy.last is not None:
            last = replace(self._policy.last, swaps=self._swaps())
            self._policy = replace(self._policy, last=last)

    def _tick(self, made_now: str) -> None:
        for name in self._made:
            if name == made_now:  # making it has done the same
                continue
            with contextlib.suppress(HyperboxError):  # its cgroup may be gone
                self._actuators[name].tick()

    def _probe(self) -> None:
        idle = [n for n, step in self._policy.steps.items() if step.status is StepStatus.IDLE]
        found = {name: self._actuators[name].unavailable() for name in idle}
        self._policy = self._policy.with_unavailable(found)

    def _publish(self, decision: Decision | None) -> None:
        before = self._status
        trail = before.trail
        if decision is not None and (decision.noteworthy or decision.state is not before.state):
            trail = (*trail, decision)[-_TRAIL:]
        views = tuple(
            StepView(
                name, self._actuators[name].title, step.status, step.unavailable, step.failures
            )
            for name, step in self._policy.steps.items()
        )
        self._status = TunerStatus(
            self._policy.state, self._dry_run, views, decision or before.last, trail
        )
