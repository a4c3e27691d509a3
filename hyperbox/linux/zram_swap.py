"""Swapping to zram as one journalled thing that can also be left for later.

Context managers undo when they are left, whatever the cost: to stop swapping reads every
page back into memory, which is the last thing a machine short of memory needs. This object
is asked to undo, may be left as it is, and is then undone by ``hyperbox doctor --repair``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from hyperbox.errors import HyperboxError
from hyperbox.journal import ChangeRecord, begin
from hyperbox.linux.knob import read_knob
from hyperbox.linux.swap import SWAP, swap_areas, swap_on
from hyperbox.linux.zram import announce_disk, make_disk
from hyperbox.processes import require, run

__all__ = ["ZramSwap"]


class ZramSwap:
    """A zram disk that is swapped to.

    Parameters
    ----------
    size
        Bytes that it may hold, before compression.
    algorithms
        Compression, the first that the kernel has.
    priority
        Of the swap area: above the disks'.

    Raises
    ------
    KernelFeatureMissing
        If this kernel has no zram or none of the algorithms.
    HarnessError, WorkloadError
        If the journal cannot be written, or the kernel refuses; nothing is left then.
    """

    def __init__(self, size: int, algorithms: Sequence[str], priority: int = 100) -> None:
        self._records: list[ChangeRecord] = [announce_disk()]
        try:
            self.device, self.algorithm = make_disk(self._records[0], size, algorithms)
            self._swap_on(priority)
        except BaseException:
            with contextlib.suppress(HyperboxError):
                self.undo()
            raise

    def active(self) -> bool:
        """Whether it is swapped to."""
        return any(area.path == str(self.device) for area in swap_areas())

    def held(self) -> int:
        """Return the bytes swapped to it: what stopping would need of free memory."""
        return sum(area.used for area in swap_areas() if area.path == str(self.device))

    def undo(self) -> None:
        """Stop swapping to it and remove the disk.

        Raises
        ------
        WorkloadError
            If the kernel refuses; it stays in the journal.
        """
        while self._records:
            self._records[-1].undo()
            self._records.pop()

    def _swap_on(self, priority: int) -> None:
        uuid = read_knob(Path("/proc/sys/kernel/random/uuid"))
        run([require("mkswap", "util-linux"), "--uuid", uuid, self.device], timeout=60)
        self._records.append(begin(SWAP, self.device, uuid=uuid))
        swap_on(self.device, priority)
