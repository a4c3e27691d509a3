"""Records of single calls on their way from the kernel: by ring buffer, or by perf buffer."""

from __future__ import annotations

import numpy as np

from hyperbox.linux.bpf import BpfMap, PerfBuffer
from hyperbox.linux.bpf_ring import BUSY, DISCARDED, MappedRing
from hyperbox.observability.layouts import CALL, RING_CALL
from hyperbox.observability.tallies import Rows

__all__ = ["PerfCalls", "RingCalls"]

_PERF_PAGES = 64  # of each processor


class RingCalls:
    """Reads them where they lie: tens of nanoseconds each."""

    def __init__(self, ring: BpfMap) -> None:
        self._ring = MappedRing(ring)

    def take(self) -> Rows:
        """Return what was reported since the last time."""
        waiting = np.frombuffer(self._ring.waiting(), RING_CALL)
        unwritten = np.flatnonzero(waiting["length"] & BUSY)
        if len(unwritten):
            waiting = waiting[: unwritten[0]]
        written = (waiting["length"] & DISCARDED) == 0
        found = np.zeros(len(waiting), CALL)
        for name in CALL.fields or ():
            found[name] = waiting[name]
        self._ring.release(waiting.nbytes)
        kept: Rows = found[written]
        return kept

    def close(self) -> None:
        """Nothing: the ring ends with its object."""


class PerfCalls:
    """Copies each of them, microseconds each: for kernels without ring buffers."""

    def __init__(self, array: BpfMap) -> None:
        self._found: list[bytes] = []
        self._buffer = PerfBuffer(array, self._found.append, _PERF_PAGES)

    def take(self) -> Rows:
        """Return what was reported since the last time, processor by processor."""
        self._buffer.drain()
        data = b"".join(record[: CALL.itemsize] for record in self._found)  # perf pads
        self._found.clear()
        return np.frombuffer(data, CALL)

    def close(self) -> None:
        """Free the buffers."""
        self._buffer.close()
