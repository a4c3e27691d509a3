"""How much the tracer looks at, so that it costs no more than its budget. Pure.

The cost of a call in each mode is measured at the start on the machine itself (`modes.Costs`),
the rate of calls in every window (`WindowLoad`). From both follows what each mode would have cost
in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hyperbox.observability.modes import Costs, Mode

__all__ = ["BUDGET", "SPAN_NS", "Governor", "WindowLoad"]

BUDGET = 0.02
"""Of the CPU time that the machine was busy, or of one processor's where that is more."""
SPAN_NS = 40_000
"""What a single call costs at least that is made into a span and encoded: 36 to 44 us were measured
on one machine. What it costs on this one is learned from the windows."""
_SPANS = 0.25  # of the budget: what single calls may take while they are a choice
_FEWEST_SPANS = 50
_MARGIN = 0.7  # of the budget: what a richer mode may cost to be taken
_PATIENCE = 5  # windows in a row
_LONGEST_REST = 60  # windows


@dataclass(frozen=True)
class WindowLoad:
    """What happened in a window."""

    calls: int
    skipped: int
    busy_ns: int
    """CPU time that the machine spent on anything, tracing included; at least one processor's."""
    own_ns: int
    """CPU time of the tracer's process."""
    reported: int = 0
    """Single calls that were made into spans."""


class Governor:
    """Steps down at once, and up when there has been room for it for some windows.

    It never does less than count every call, even beyond the budget, unless `duty_cycle` is set:
    then only every n-th window is counted where counting alone costs too much.
    """

    def __init__(
        self,
        costs: Costs,
        *,
        budget: float = BUDGET,
        first: Mode = Mode.FULL,
        duty_cycle: bool = False,
    ) -> None:
        self._costs = costs
        self._budget = budget
        self._duty_cycle = duty_cycle
        self.mode = first
        self._room = 0
        self._rest = 0
        self._span_ns = float(SPAN_NS)
        self._base_ns = math.inf  # what the tracer's process takes of a window without spans

    def cost(self, load: WindowLoad) -> float:
        """Return the share of the machine's CPU time that tracing took, from 0."""
        calls = self._costs.of(self.mode, load.calls, load.skipped)
        return (calls + load.own_ns) / max(load.busy_ns, 1)

    def most_spans(self, busy_ns: int) -> int:
        """Return how many single calls are made into spans where not all of them are."""
        return max(_FEWEST_SPANS, int(self._budget * _SPANS * busy_ns / self._span_ns))

    def _would_cost(self, load: WindowLoad, mode: Mode) -> float:
        reported = {Mode.FULL: load.calls, Mode.HYBRID: load.reported}.get(mode, 0)
        own_ns = max(0, load.own_ns - load.reported * self._span_ns) + reported * self._span_ns
        calls = self._costs.of(mode, load.calls, load.skipped)
        return (calls + own_ns) / max(load.busy_ns, 1)

    def step(self, load: WindowLoad) -> Mode:
        """Return the mode of the next window, after one that was traced in `mode`."""
        self._learn(load)
        if self.mode is Mode.OFF:
            self._rest -= 1
            if self._rest <= 0:
                self.mode = Mode.COUNT
            return self.mode
        if self.cost(load) > self._budget:
            self._down(load)
        elif self.mode > Mode.FULL and self._fits(load, Mode(self.mode - 1), _MARGIN):
            self._room += 1
            if self._room >= _PATIENCE:
                self.mode, self._room = Mode(self.mode - 1), 0
        else:
            self._room = 0
        return self.mode

    def _learn(self, load: WindowLoad) -> None:
        if load.reported < _FEWEST_SPANS:
            self._base_ns = min(self._base_ns, load.own_ns)
        elif self._base_ns < math.inf:
            self._span_ns = max(SPAN_NS, (load.own_ns - self._base_ns) / load.reported)

    def _down(self, load: WindowLoad) -> None:
        self._room = 0
        poorer = [mode for mode in (Mode.HYBRID, Mode.COUNT) if mode > self.mode]
        fitting = [mode for mode in poorer if self._fits(load, mode, 1.0)]
        if fitting:
            self.mode = fitting[0]
        elif poorer:
            self.mode = Mode.COUNT
        elif self._duty_cycle:
            times = self._would_cost(load, Mode.COUNT) / self._budget
            self.mode, self._rest = Mode.OFF, min(_LONGEST_REST, max(1, math.ceil(times) - 1))

    def _fits(self, load: WindowLoad, mode: Mode, share: float) -> bool:
        return self._would_cost(load, mode) <= self._budget * share
