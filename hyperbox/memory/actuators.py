"""The tuner's hands: one interface for every step, and the steps that are plain settings.

An actuator says why it cannot work here instead of failing later, changes settings through
the journal only (`hyperbox.journal`: on record before, undone after, also by
``hyperbox doctor --repair``), and puts back only what still holds its value. None of them
swaps off under pressure, drops caches of the whole machine, or ends a process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from hyperbox.errors import ConfigError, HyperboxError, KernelFeatureMissing, WorkloadError
from hyperbox.journal import UndoOutcome
from hyperbox.linux.knob import KnobChange, read_knob, setting, sysctl

__all__ = [
    "LEAST_SWAPPINESS",
    "Actuator",
    "KnobActuator",
    "page_cluster",
    "put_back",
    "swappiness",
]

LEAST_SWAPPINESS = 20
"""Below this the kernel thrashes the page cache instead: 78 % fewer requests at 10."""


class Actuator(Protocol):
    """One step that the tuner can make and take back."""

    @property
    def name(self) -> str:
        """Short name, for decisions and settings."""
        ...

    @property
    def title(self) -> str:
        """What it does, for people."""
        ...

    def unavailable(self) -> str:
        """Say why it cannot be made now; empty if it can. Changes nothing."""
        ...

    def apply(self) -> tuple[str, ...]:
        """Make it; say what was changed. What was made before an error is put back.

        Raises
        ------
        HyperboxError
            If the kernel refuses.
        """
        ...

    def tick(self) -> tuple[str, ...]:
        """Do what has to be done again at each reading while it is applied."""
        ...

    def lost(self) -> bool:
        """Whether somebody else has undone it since, so that nothing of it is in force."""
        ...

    def revert(self, *, calm: bool) -> tuple[str, ...]:
        """Take it back where it still holds; say what was put back, and what was not.

        `calm` False means that the machine is short of memory: then what needs memory to
        be undone stays and is said to stay.

        Raises
        ------
        HyperboxError
            If something could not be put back; it stays in the journal.
        """
        ...


class KnobActuator:
    """A step made of settings.

    Parameters
    ----------
    wanted
        Gives the settings and their values, in order; called at each probe and apply.
        It raises `HyperboxError` with the reason where the step makes no sense.
    """

    def __init__(
        self, name: str, title: str, wanted: Callable[[], Iterable[tuple[Path, str]]]
    ) -> None:
        self.name = name
        self.title = title
        self._wanted = wanted
        self._changes: list[KnobChange] = []

    def unavailable(self) -> str:
        """Say why it cannot be made now: a setting is missing, or holds the value already."""
        try:
            left = self._to_change()
        except HyperboxError as error:
            return error.message
        return "" if left else "everything it would change is so already"

    def apply(self) -> tuple[str, ...]:
        """Return every setting its value."""
        done = []
        try:
            for path, value in self._to_change():
                change = KnobChange(path)
                before = setting(change.original)
                self._changes.append(change)  # before: a signal may come in between
                after = setting(change.apply(value))
                done.append(f"{_short(path)} {before} -> {after}")
        except BaseException:
            with contextlib.suppress(HyperboxError):
                put_back(self._changes)
            raise
        return tuple(done)

    def tick(self) -> tuple[str, ...]:
        """Nothing: settings stay."""
        return ()

    def lost(self) -> bool:
        """Whether none of its settings holds our value any more."""
        return bool(self._changes) and not any(change.held() for change in self._changes)

    def revert(self, *, calm: bool) -> tuple[str, ...]:
        """Put every setting back, the last one first."""
        return put_back(self._changes)

    def _to_change(self) -> list[tuple[Path, str]]:
        return [
            (path, value) for path, value in self._wanted() if setting(read_knob(path)) != value
        ]


def put_back(changes: list[KnobChange]) -> tuple[str, ...]:
    """Restore changes, the last one first, and empty the list; all are tried.

    Raises
    ------
    WorkloadError
        If one or more could not be restored; they stay in the journal.
    """
    done, faults = [], []
    while changes:
        change = changes[-1]
        name, original = _short(change.path), setting(change.original)
        try:
            outcome = change.restore()
        except HyperboxError as error:
            faults.append(error.message)
        else:
            undone = outcome is UndoOutcome.UNDONE
            done.append(f"{name} back to {original}" if undone else f"{name}: {outcome}")
        changes.pop()
    if faults:
        raise WorkloadError("; ".join((*done, *faults)), hint="hyperbox doctor --repair")
    return tuple(done)


def page_cluster() -> KnobActuator:
    """Read single pages back from swap: what lies beside a page on swap may not be wanted.

    Follows Documentation/admin-guide/sysctl/vm.rst. Reading around costs memory, and at
    pressure each page too many pushes a wanted one out. But it saves a slow disk most of its
    waits where memory is used in order: set ahead of need, 0 made a stress-ng mix wait ten
    times as often. So it has to be tried; zram needs it for shared pages only
    (SWP_SYNCHRONOUS_IO: the kernel reads the others singly by itself).
    """

    def wanted() -> Sequence[tuple[Path, str]]:
        path = sysctl("vm.page-cluster")
        if read_knob(path) == "0":
            raise KernelFeatureMissing("vm.page-cluster is 0 already")
        return [(path, "0")]

    return KnobActuator("page-cluster", "read single pages back from swap", wanted)


def swappiness(value: int, has_fast_swap: Callable[[], bool]) -> KnobActuator:
    """Prefer swap to the page cache, where swap is fast; never the other way round.

    Raises
    ------
    ConfigError
        If `value` is below 20 or above 200.
    """
    if not LEAST_SWAPPINESS <= value <= 200:
        raise ConfigError(
            f"swappiness {value} is outside {LEAST_SWAPPINESS} ... 200",
            hint="lower values thrash the page cache",
        )

    def wanted() -> Sequence[tuple[Path, str]]:
        path = sysctl("vm.swappiness")
        if not has_fast_swap():
            raise KernelFeatureMissing("no fast swap: a higher swappiness would only slow down")
        if int(read_knob(path)) >= value:
            raise KernelFeatureMissing(f"vm.swappiness is {value} or more already")
        return [(path, str(value))]

    return KnobActuator("swappiness", f"prefer fast swap to the page cache ({value})", wanted)


def _short(path: Path) -> str:
    text = str(path)
    if text.startswith("/proc/sys/"):
        return text.removeprefix("/proc/sys/").replace("/", ".")
    return text
