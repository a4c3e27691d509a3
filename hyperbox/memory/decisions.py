"""What the tuner decides, and the numbers that it decides by. Pure values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from hyperbox.memory.readings import SECOND_NS

__all__ = ["Action", "Decision", "Rules", "StepStatus", "TunerState"]


class TunerState(StrEnum):
    """Where the tuner stands."""

    NORMAL = "normal"
    WATCH = "watch"
    ACT = "act"
    HOLD = "hold"
    RELAX = "relax"


class Action(StrEnum):
    """What a decision asks for."""

    NOTHING = "nothing"
    PREPARE = "prepare"
    APPLY = "apply"
    KEEP = "keep"
    REVERT = "revert"
    RESTORE = "restore"
    REFUSED = "refused"


class StepStatus(StrEnum):
    """What a step is doing."""

    IDLE = "idle"
    TRIAL = "on trial"
    KEPT = "kept"
    PREPARED = "prepared"


@dataclass(frozen=True)
class Rules:
    """The numbers of the policy; percent, seconds, and pages a second.

    `confirm` is how many readings in a row make a threshold crossed. `interval_s` is the
    time expected between readings; three times that is a gap. `gain` is the fraction by which
    pressure must fall for a step to be kept; above `saturated` percent, where a task that
    does nothing but wait stays whatever a step is worth, the time left for work must grow by
    the fraction `work_gain` instead.
    """

    watch: float = 40.0
    act: float = 80.0
    calm: float = 20.0
    confirm: int = 2
    interval_s: float = 5.0
    settle_s: float = 5.0
    measure_s: float = 10.0
    relax_s: float = 60.0
    gain: float = 0.03
    saturated: float = 90.0
    work_gain: float = 0.10
    refault_rise: float = 0.20
    swap_in_floor: float = 10.0
    refault_floor: float = 50.0
    backoff_s: float = 60.0
    longest_backoff_s: float = 3600.0
    relapse_s: float = 600.0

    @property
    def measure_ns(self) -> int:
        """How long a step is measured: whole intervals, and at least one."""
        intervals = max(math.ceil(self.measure_s / self.interval_s), 1)
        return int(intervals * self.interval_s * SECOND_NS)

    @property
    def late_ns(self) -> int:
        """How late a reading may be without being left out of what is measured."""
        return int(self.interval_s * SECOND_NS / 4)

    @property
    def gap_ns(self) -> int:
        """Longest time between readings across which anything may be concluded."""
        return int((3 * self.interval_s + 1) * SECOND_NS)


@dataclass(frozen=True)
class Decision:
    """What was decided at a reading and why: one line of the audit trail.

    `step` is what `action` is about; empty for `Action.NOTHING`. `score` and its parts are
    percent of the interval before the reading.
    """

    time_ns: int
    state: TunerState
    action: Action
    step: str
    reason: str
    score: float = 0.0
    memory_some: float = 0.0
    io_some: float = 0.0
    swap_ins: float = 0.0
    changes: tuple[str, ...] = ()
    """What was really changed or put back, and what was found: in words, added by the tuner."""

    @property
    def noteworthy(self) -> bool:
        """Whether something is to be done, or could not be, or was found."""
        return self.action is not Action.NOTHING or bool(self.changes)

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {
            "time_ns": self.time_ns,
            "state": str(self.state),
            "action": str(self.action),
            "step": self.step,
            "reason": self.reason,
            "score": round(self.score, 2),
            "memory_some": round(self.memory_some, 2),
            "io_some": round(self.io_some, 2),
            "swap_ins": round(self.swap_ins, 1),
            "changes": list(self.changes),
        }
