"""The tuner as the pressure service sees it: a listener that tunes at each sample.

Every decision that is more than "nothing" is a line of the log: the audit trail outlives
the last decisions that the endpoint shows.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    StateSetMetricFamily,
)

from hyperbox.daemon.logs import fields
from hyperbox.memory.decisions import Action, Decision, StepStatus, TunerState
from hyperbox.memory.psi import PressureHistory
from hyperbox.memory.tuner import TunerStatus
from hyperbox.memory.tuning import TunerOptions, Tuning

__all__ = ["TunerListener", "families"]

_LOG = logging.getLogger(__name__)


class TunerListener:
    """Steps the tuner in the sampling thread, and takes everything back at the end.

    Raises
    ------
    PressureMissing
        If this kernel reports no pressure, with the reason.
    HarnessError
        If another tuner runs already.
    """

    def __init__(self, options: TunerOptions) -> None:
        self._tuning = Tuning(options)
        self._mode = "dry-run" if options.dry_run else "tune"
        self._counts: Counter[Action] = Counter()
        self._state = TunerState.NORMAL

    def sampled(self, _snapshot: PressureHistory) -> None:
        """Let the tuner take its own reading and act on it."""
        self._record(self._tuning.step())

    def report(self) -> Mapping[str, object]:
        """Return the tuner's mode, state, steps and last decisions."""
        return {"mode": self._mode, **self._tuning.report()}

    def metrics(self) -> Iterable[Metric]:
        """Return the tuner's metric families."""
        return families(self._tuning.status(), dict(self._counts))

    def close(self) -> None:
        """Take everything back; what was done, or could not be, is logged.

        Raises
        ------
        HarnessError
            If something could not be put back.
        """
        for decision in self._tuning.close():
            self._record(decision)
        self._tuning.check_put_back()

    def _record(self, decision: Decision) -> None:
        if decision.action is not Action.NOTHING:
            self._counts[decision.action] += 1
        elif decision.state is self._state and not decision.noteworthy:
            return
        self._state = decision.state
        logged: dict[str, object] = {"state": decision.state, "action": decision.action}
        logged |= {"step": decision.step} if decision.step else {}
        logged |= {"changes": "; ".join(decision.changes)} if decision.changes else {}
        logged |= {"score": f"{decision.score:.1f}", "why": decision.reason, "mode": self._mode}
        _LOG.info("tuner", extra=fields(**logged))


def families(status: TunerStatus, counts: Mapping[Action, int]) -> Iterable[Metric]:
    """Return a tuner's status, and how often it did what, as metric families. Pure."""
    yield StateSetMetricFamily(
        "hyperbox_tuner_state",
        "Where the tuner stands.",
        {str(state): state is status.state for state in TunerState},
    )
    yield GaugeMetricFamily(
        "hyperbox_tuner_dry_run",
        "1 if the tuner decides and changes nothing.",
        value=float(status.dry_run),
    )
    if status.last is not None:
        yield GaugeMetricFamily(
            "hyperbox_tuner_score_ratio",
            "Pressure that the tuner judges by: memory, or storage while pages are swapped in.",
            value=status.last.score / 100,
            unit="ratio",
        )
    steps = GaugeMetricFamily(
        "hyperbox_tuner_step_in_force",
        "1 for a step of the tuner that is prepared, on trial or kept.",
        labels=["step"],
    )
    for step in status.steps:
        steps.add_metric([step.name], float(step.status is not StepStatus.IDLE))
    yield steps
    decisions = CounterMetricFamily(
        "hyperbox_tuner_decisions", "Decisions of the tuner to do something.", labels=["action"]
    )
    for action in Action:
        if action is not Action.NOTHING:
            decisions.add_metric([str(action)], counts.get(action, 0))
    yield decisions
