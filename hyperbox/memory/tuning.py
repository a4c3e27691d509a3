"""The tuner put together: options, actuators, readings, the lock, and a loop over them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.journal import state_directory
from hyperbox.linux.exclusive_lock import exclusive_lock
from hyperbox.linux.knob import KNOB
from hyperbox.memory.actuators import Actuator, page_cluster, swappiness
from hyperbox.memory.audit import AuditEntry, Trail, trail_file
from hyperbox.memory.decisions import Decision, Rules, TunerState
from hyperbox.memory.fast_swap import FirstOf, ZramActuator, ZswapActuator, has_fast_swap
from hyperbox.memory.observer import Observer, swap_names
from hyperbox.memory.psi import PressureHistory
from hyperbox.memory.reclaim import MemoryHighActuator, PageCacheActuator, damon
from hyperbox.memory.tuner import Tuner, TunerStatus
from hyperbox.repair import repair

__all__ = ["FAST_SWAPS", "RELIEFS", "STEPS", "TunerOptions", "Tuning", "actuators"]

FAST_SWAPS = ("auto", "zram", "zswap", "none")
"""What may be prepared.

``auto`` is zswap in front of disk swap where the kernel has it, else zram: when zswap is full
it writes the least wanted pages to the disk whatever came first, and each cgroup pays for what
it stores.
"""

STEPS = ("page-cache", "page-cluster", "swappiness", "memory-high-1", "memory-high-2", "damon")
"""Names of the steps in the order in which they are tried: what costs others least first."""

RELIEFS = ("page-cache",)
"""Those that take nothing that is wanted: page cache that its owner has given away.

Measured (suite psi, high load, work against zram-generator's settings, same starts): on 6.18
with a zram that fills +49 % with the relief and +17 % without; on 7.3 with zswap no change.
"""


@dataclass(frozen=True)
class TunerOptions:
    """How to tune.

    `group` is a cgroup whose pressure is judged instead of the machine's. `streaming` are
    cgroups whose page cache may be given up and whose growth may be slowed down. `zram_mib`
    is what zram may hold before compression; None takes as much as the memory, at most 8 GiB.
    """

    rules: Rules = field(default_factory=Rules)
    group: Path | None = None
    streaming: tuple[Path, ...] = ()
    fast_swap: str = "auto"
    zram_mib: int | None = None
    swappiness: int = 100
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.fast_swap not in FAST_SWAPS:
            raise ConfigError(
                f"fast swap cannot be {self.fast_swap!r}", hint=f"one of {', '.join(FAST_SWAPS)}"
            )
        if not 1 <= self.rules.interval_s <= 300:
            raise ConfigError(
                f"an interval of {self.rules.interval_s:g} s cannot be tuned by",
                hint="give 1 to 300 seconds",
            )


def actuators(options: TunerOptions) -> tuple[list[Actuator], list[Actuator]]:
    """Return the steps and the preparations."""
    size = None if options.zram_mib is None else options.zram_mib << 20
    rungs: dict[str, Actuator] = {"zswap": ZswapActuator(), "zram": ZramActuator(size)}
    if options.fast_swap in rungs:
        rungs = {options.fast_swap: rungs[options.fast_swap]}
    title = "swap to compressed memory before the disk, ahead of need"
    ladder = FirstOf("fast-swap", title, tuple(rungs.values()))
    ahead: list[Actuator] = [] if options.fast_swap == "none" else [ladder]
    steps: list[Actuator] = [
        PageCacheActuator(options.streaming),
        page_cluster(),
        swappiness(options.swappiness, has_fast_swap),
        MemoryHighActuator(options.streaming, level=1),
        MemoryHighActuator(options.streaming, level=2),
        damon(),
    ]
    return steps, ahead


class Tuning:
    """A tuner at work on this machine; the second one is refused.

    It also serves as a listener of a sampler: `sampled`, `report`, `close`. What it decides is
    appended to the audit trail (`hyperbox.memory.audit`), a dry run's is not: nothing happened.

    Raises
    ------
    PressureMissing
        If this kernel gives no pressure, with the reason.
    HarnessError
        If another tuner runs already (not with ``dry_run``).
    """

    def __init__(self, options: TunerOptions) -> None:
        self.options = options
        with contextlib.ExitStack() as stack:
            self._observer = Observer(options.group, options.streaming)
            stack.callback(self._observer.close)
            if not options.dry_run:
                lock = state_directory().parent / "tuner.lock"
                stack.enter_context(exclusive_lock(lock, "a tuner"))
            found = () if options.dry_run else _put_in_order()
            steps, ahead = actuators(options)
            self.tuner = Tuner(
                steps,
                ahead,
                reliefs=RELIEFS,
                rules=options.rules,
                swaps=swap_names,
                dry_run=options.dry_run,
                found=found,
            )
            self._trail = None if options.dry_run else Trail(trail_file())
            self._state: TunerState | None = None
            self._stack = stack.pop_all()

    def __enter__(self) -> Tuning:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self) -> Decision:
        """Take a reading and act on it."""
        return self._kept(self.tuner.step(self._observer.reading()))

    def sampled(self, _snapshot: PressureHistory) -> None:
        """Take a reading and act on it: a sampler has just sampled."""
        self.step()

    def status(self) -> TunerStatus:
        """Return what the tuner is doing; from any thread, without a lock."""
        return self.tuner.status()

    def report(self) -> dict[str, object]:
        """Return the status as JSON values; from any thread, without a lock."""
        return self.status().as_json()

    def close(self) -> tuple[Decision, ...]:
        """Take everything back and let the lock go; return what was done."""
        with self._stack:
            return tuple(map(self._kept, self.tuner.close()))

    def check_put_back(self) -> None:
        """Say what could not be put back, for callers that have closed it.

        Raises
        ------
        HarnessError
            If there is something left; it stays on record.
        """
        if self.tuner.left:
            left = "; ".join(self.tuner.left)
            raise HarnessError(f"not put back: {left}", hint="hyperbox doctor --repair")

    def _kept(self, decision: Decision) -> Decision:
        """Append a decision to the trail; a trail that cannot be kept is said, once."""
        eventful = decision.noteworthy or decision.state is not self._state
        self._state = decision.state
        if self._trail is None or not eventful:
            return decision
        try:
            self._trail.add(AuditEntry(time.time(), os.getpid(), decision))
        except HarnessError as error:
            self._trail = None
            return replace(decision, changes=(*decision.changes, f"no trail: {error.message}"))
        return decision

    def run(self, report: Callable[[Decision], None], *, count: int | None = None) -> None:
        """Step at the interval until `count` readings or an exception, such as a signal's.

        Steps lie on a grid from the start: a late one delays no other.
        """
        interval_s = self.options.rules.interval_s
        start = time.monotonic()
        taken = 0
        while count is None or taken < count:
            report(self.step())
            taken += 1
            if taken != count:
                time.sleep(interval_s - (time.monotonic() - start) % interval_s)


def _put_in_order() -> tuple[str, ...]:
    """Put back the settings that killed processes left, or they would pass for originals.

    Swap areas stay: to stop swapping reads everything back, and memory may have been short
    when the process was killed. ``hyperbox doctor --repair`` is for them.
    """
    done = [one for one in repair({KNOB.name: KNOB}) if one.change.kind == KNOB.name]
    return tuple(f"left by killed process {one.change.owner.pid}: {one}" for one in done)
