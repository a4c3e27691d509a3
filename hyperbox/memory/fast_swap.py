"""Preparations: swap in compressed memory, ahead of need.

What is on the disk already stays there, so this helps little once memory is short. zram goes
in front of disk swap by its priority; zswap compresses what is on its way to the disk. One of
them is enough: together they would compress twice. zswap by itself does nothing: without a swap
area there is no way to the disk (Documentation/admin-guide/mm/zswap.rst).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from hyperbox.errors import HyperboxError, KernelFeatureMissing
from hyperbox.linux.knob import KnobChange, read_knob, setting, sysctl
from hyperbox.linux.modules import why_not_loadable
from hyperbox.linux.swap import HIGHEST_PRIORITY, SwapArea, swap_areas
from hyperbox.linux.zram_swap import ZramSwap
from hyperbox.linux.zswap import ZSWAP, zswap_enabled, zswap_present
from hyperbox.memory.actuators import Actuator, put_back

__all__ = [
    "ALGORITHMS",
    "FirstOf",
    "ZramActuator",
    "ZswapActuator",
    "has_fast_swap",
    "usual_zram_size",
]

ALGORITHMS = ("lz4", "lzo-rle", "lzo", "zstd")
"""Compression in order of preference: speed first."""

_MOST_ZRAM = 8 << 30
_PRIORITY = 100  # above what disks have by themselves, which is negative


class FirstOf:
    """A ladder of actuators for one purpose: the first that works is taken, and said why.

    Parameters
    ----------
    rungs
        In order of preference.
    """

    def __init__(self, name: str, title: str, rungs: Sequence[Actuator]) -> None:
        self.name = name
        self.title = title
        self._rungs = tuple(rungs)
        self._taken: Actuator | None = None

    def unavailable(self) -> str:
        """Say why no rung can be taken; empty if one can."""
        reasons = [(rung.name, rung.unavailable()) for rung in self._rungs]
        if not all(reason for _, reason in reasons):
            return ""
        return "; ".join(f"{name}: {reason}" for name, reason in reasons)

    def apply(self) -> tuple[str, ...]:
        """Take the first rung that can be made; what kept the better ones from it is said too.

        Raises
        ------
        KernelFeatureMissing
            If none can, with every reason.
        """
        reasons: list[str] = []
        for rung in self._rungs:
            why = rung.unavailable()
            if not why:
                self._taken = rung  # before: a signal may come in between
                try:
                    return (*rung.apply(), *reasons)
                except HyperboxError as error:
                    why = error.message
            reasons.append(f"no {rung.name}: {why}")
        raise KernelFeatureMissing("; ".join(reasons))

    def tick(self) -> tuple[str, ...]:
        """Do what the rung taken does."""
        return self._taken.tick() if self._taken else ()

    def lost(self) -> bool:
        """Whether somebody else has undone the rung taken."""
        return self._taken is not None and self._taken.lost()

    def revert(self, *, calm: bool) -> tuple[str, ...]:
        """Take the rung back."""
        return self._taken.revert(calm=calm) if self._taken else ()


def has_fast_swap() -> bool:
    """Whether pages are swapped to compressed memory now."""
    areas = swap_areas()
    return bool(areas and zswap_enabled()) or any(map(_is_zram, areas))


def usual_zram_size() -> int:
    """Return the machine's memory in bytes, at most 8 GiB: Fedora's size for zram-generator.

    That is what may be swapped to it; compressed it takes about half of that, and nothing
    before it is needed. One that fills pushes pages to the disk.
    """
    for line in read_knob(Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return min(int(value.split()[0]) * 1024, _MOST_ZRAM)
    raise ValueError("no MemTotal in /proc/meminfo")


class ZramActuator:
    """Swaps to zram before any disk.

    Parameters
    ----------
    size
        Bytes that it may hold before compression; None takes `usual_zram_size`.
    """

    name = "zram"
    title = "swap to compressed memory (zram) before the disk"

    def __init__(self, size: int | None = None, algorithms: Sequence[str] = ALGORITHMS) -> None:
        self._size = size
        self._algorithms = algorithms
        self._swap: ZramSwap | None = None
        self._zswap: list[KnobChange] = []
        self._left: list[ZramSwap] = []

    def unavailable(self) -> str:
        """Say why there is nothing to prepare."""
        areas = swap_areas()
        if any(map(_is_zram, areas)):
            twice = ", behind zswap: pages are compressed twice" if zswap_enabled() else ""
            return f"this machine swaps to zram already{twice}"
        if areas and zswap_enabled():
            return "zswap is on: one compressed swap is enough"
        first = max(areas, key=lambda area: area.priority, default=None)
        if first and first.priority == HIGHEST_PRIORITY:
            return (
                f"{first.path} has the highest priority that there is ({HIGHEST_PRIORITY}): the "
                "kernel would fill both in turn"
            )
        return why_not_loadable("zram")

    def apply(self) -> tuple[str, ...]:
        """Make the disk and swap to it; zswap, which has had nothing to go before, is off then."""
        size = self._size if self._size is not None else usual_zram_size()
        highest = max((area.priority for area in swap_areas()), default=-1)
        priority = min(max(highest + 10, _PRIORITY), HIGHEST_PRIORITY)
        off: tuple[str, ...] = ()
        if zswap_enabled():
            self._zswap.append(KnobChange(ZSWAP / "enabled"))
            self._zswap[-1].apply("N")
            off = ("zswap enabled Y -> N: it would compress what goes to zram",)
        try:
            self._swap = made = ZramSwap(size, self._algorithms, priority)
        except BaseException:
            with contextlib.suppress(HyperboxError):
                put_back(self._zswap)
            raise
        return (f"swapping to {made.device}, {size >> 20} MiB, {made.algorithm}", *off)

    def tick(self) -> tuple[str, ...]:
        """Nothing: it stays."""
        return ()

    def lost(self) -> bool:
        """Whether somebody else has stopped swapping to it."""
        return self._swap is not None and not self._swap.active()

    def revert(self, *, calm: bool) -> tuple[str, ...]:
        """Stop swapping to it and remove it, if there is room for what it holds.

        Under pressure it stays, and in the journal: stopping would read everything back.
        """
        made = self._swap
        if made is None:
            return put_back(self._zswap)
        held, free = made.held(), _available()
        if held and (not calm or held > free // 2):
            self._left.append(made)
            self._swap = None
            why = "memory is short" if not calm else f"{free >> 20} MiB are free"
            return (
                f"{made.device} holds {held >> 20} MiB and stays ({why}): "
                "hyperbox doctor --repair removes it later",
                *put_back(self._zswap),
            )
        try:
            made.undo()
            self._swap = None
        finally:
            back = put_back(self._zswap)
        return (f"{made.device} removed", *back)


class ZswapActuator:
    """Compresses what is on its way to disk swap; nothing is lost when it is switched off."""

    name = "zswap"
    title = "compress pages on their way to disk swap (zswap)"

    def __init__(self, compressors: Sequence[str] = ALGORITHMS) -> None:
        self._compressors = compressors
        self._changes: list[KnobChange] = []

    def unavailable(self) -> str:
        """Say why it cannot be switched on."""
        if not zswap_present():
            return "this kernel was built without zswap"
        areas = swap_areas()
        if zswap_enabled():
            idle = "" if areas else ", but does nothing: there is no swap area"
            return f"zswap is on already{idle}"
        if any(map(_is_zram, areas)):
            return "this machine swaps to zram: one compressed swap is enough"
        return "" if areas else "there is no disk swap to go in front of"

    def apply(self) -> tuple[str, ...]:
        """Choose the compression, switch it on.

        Pages are read back singly: what lies beside one would be taken out of the compressed
        memory, too, and push others out to the disk.

        Its shrinker stays as it is (off, unless somebody has switched it on): it writes pages
        to the disk before the pool is full. Measured (suite psi, high load, 7.3, same starts):
        415 requests a second without it, 161 with it, 103 without zswap.
        """
        try:
            done = [self._compressor()]
            done.append(self._set(sysctl("vm.page-cluster"), "0"))
            done.append(self._set(ZSWAP / "enabled", "Y"))
        except BaseException:
            with contextlib.suppress(HyperboxError):
                put_back(self._changes)
            raise
        return tuple(done)

    def tick(self) -> tuple[str, ...]:
        """Nothing: it stays."""
        return ()

    def lost(self) -> bool:
        """Whether somebody else has switched it off."""
        return bool(self._changes) and not self._changes[-1].held()

    def revert(self, *, calm: bool) -> tuple[str, ...]:
        """Switch it off; what it holds stays in memory until it is wanted."""
        return put_back(self._changes)

    def _compressor(self) -> str:
        """Take the first that the kernel accepts; what it has now will do too."""
        for name in self._compressors:
            with contextlib.suppress(HyperboxError):
                return self._set(ZSWAP / "compressor", name)
        return f"zswap compressor stays {read_knob(ZSWAP / 'compressor')}"

    def _set(self, path: Path, value: str) -> str:
        name = f"zswap {path.name}" if path.is_relative_to(ZSWAP) else f"vm.{path.name}"
        change = KnobChange(path)
        before = setting(change.original)
        if before == value:
            return f"{name} is {value}"
        self._changes.append(change)
        try:
            change.apply(value)
        except HyperboxError:
            self._changes.remove(change)
            raise
        return f"{name} {before} -> {value}"


def _is_zram(area: SwapArea) -> bool:
    return area.path.startswith("/dev/zram")


def _available() -> int:
    for line in read_knob(Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0
