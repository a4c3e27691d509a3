"""What windows amount to: a row for each call of each program, by its time. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hyperbox.observability.ebpf import Window
from hyperbox.observability.layouts import TALLY
from hyperbox.observability.tallies import (
    Rows,
    abi_of,
    call_name,
    errors_of,
    merged,
    percentile_ns,
    process_of,
)

__all__ = ["Summary", "SummaryRow"]

_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class SummaryRow:
    """A call by processes of one name; latencies are of those that were timed."""

    process: str
    call: str
    abi: str
    count: int
    errors: int
    errnos: Mapping[int, int]
    p50_ns: float
    p99_ns: float
    share: float
    """Of the time in all calls, from 0 to 1: the timed ones' mean stands for all."""


class Summary:
    """Adds up windows; its size depends on how many names and calls there are, not on time."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._rows: Rows = np.zeros(0, TALLY)
        self.count = 0
        self.unattributed = 0
        self.spans = 0
        self.skipped = 0
        self.processes = 0
        self.elapsed_ns = 0
        self.lost: dict[str, int] = {}
        self.modes: dict[str, int] = {}
        self._cost_ns = 0.0

    def add(self, window: Window) -> None:
        """Add a window."""
        rows = window.tallies.copy()
        places = np.array(
            [
                self._names.setdefault(window.lives[process][-1].comm, len(self._names))
                for process in (rows["key"] >> 32).tolist()
            ],
            np.uint64,
        )
        rows["key"] = rows["key"] & _LOW | places << np.uint64(32)
        self._rows = merged(np.concatenate((self._rows, rows)))
        self.count += window.count
        self.unattributed += sum(window.unattributed.values())
        self.skipped += window.skipped
        self.elapsed_ns += window.end_ns - window.start_ns
        mode = window.mode.name.lower()
        self.modes[mode] = self.modes.get(mode, 0) + 1
        self._cost_ns += window.cost * (window.end_ns - window.start_ns)
        for cause, count in window.lost.items():
            self.lost[cause] = self.lost.get(cause, 0) + count

    @property
    def cost(self) -> float:
        """What tracing took of the CPU time that the machine was busy, from 0: a mean."""
        return self._cost_ns / max(self.elapsed_ns, 1)

    def rows(self) -> list[SummaryRow]:
        """Return what was added, by time, then by count."""
        rows = self._rows
        mean = rows["sum_ns"] / np.maximum(rows["timed"], 1)
        times = mean * rows["count"]
        order = np.lexsort((-rows["count"].astype(np.int64), -times))
        names = list(self._names)
        whole = max(float(times.sum()), 1.0)
        return [self._row(rows[i], names, float(times[i]) / whole) for i in order.tolist()]

    @staticmethod
    def _row(row: np.void, names: list[str], share: float) -> SummaryRow:
        key, longest = int(row["key"]), int(row["max_ns"])
        buckets = row["buckets"].tolist()
        return SummaryRow(
            process=names[process_of(key)],
            call=call_name(key),
            abi=abi_of(key),
            count=int(row["count"]),
            errors=int(row["errors"]),
            errnos=errors_of(row.reshape(1)),
            p50_ns=percentile_ns(buckets, 0.50, longest),
            p99_ns=percentile_ns(buckets, 0.99, longest),
            share=share,
        )
