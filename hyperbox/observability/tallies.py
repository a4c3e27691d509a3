"""Tallies of calls, as rows of numpy: merged over processors, subtracted, summarised. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hyperbox.linux.syscalls import Abi, name_of
from hyperbox.observability.layouts import BUCKETS, FIRST_BUCKET, TALLY

__all__ = [
    "ABI_SHIFT",
    "Rows",
    "abi_of",
    "call_name",
    "errors_of",
    "grown",
    "merged",
    "number_of",
    "percentile_ns",
    "process_of",
    "upper_ns",
]

Rows = NDArray[np.void]

ABI_SHIFT = 30
_ABIS = ("x86_64", "i386", "x32", "unknown")
_SUMMED = ("count", "sum_ns", "timed", "errors", "buckets")


def process_of(key: int) -> int:
    """Return the process of a key."""
    return key >> 32


def abi_of(key: int) -> str:
    """Return the name of the ABI by which a call came."""
    return _ABIS[key >> ABI_SHIFT & 3]


def number_of(key: int) -> int:
    """Return the number of a call, in its own ABI's table."""
    return key & ((1 << ABI_SHIFT) - 1)


def call_name(key: int) -> str:
    """Return the name of a call; x32 calls have those of x86-64 but for numbers from 512 on."""
    return name_of(number_of(key), Abi.I386 if abi_of(key) == "i386" else Abi.X86_64)


def merged(rows: Rows) -> Rows:
    """Return one row for each key, in the order of keys, summed over the rows given."""
    if not len(rows):
        return rows
    rows = rows[np.argsort(rows["key"], kind="stable")]
    keys, starts = np.unique(rows["key"], return_index=True)
    if len(keys) == len(rows):
        return rows
    result = np.zeros(len(keys), TALLY)
    result["key"] = keys
    for name in _SUMMED:
        result[name] = np.add.reduceat(rows[name], starts)
    result["max_ns"] = np.maximum.reduceat(rows["max_ns"], starts)
    failing = np.flatnonzero(result["errors"])
    ends = np.append(starts[1:], len(rows))
    for place in failing:
        found = errors_of(rows[starts[place] : ends[place]])
        kept = sorted(found.items(), key=lambda pair: -pair[1])[: TALLY["failures"].shape[0]]
        for index, pair in enumerate(kept):
            result["failures"][place, index] = pair
    return result


def errors_of(rows: Rows) -> Mapping[int, int]:
    """Return how often calls failed by error number; what a tally has no place for is missing."""
    found: dict[int, int] = {}
    for number, count in rows["failures"].reshape(-1).tolist():
        if count:
            found[number] = found.get(number, 0) + count
    return found


def grown(before: Rows, now: Rows) -> Rows:
    """Return what has been added to a table since `before` was read from it.

    Keys keep their places, so `before` is a subsequence of `now`; a key may be in both several
    times, in the same order. `max_ns` is the whole maximum.
    """
    if before.tobytes() == now.tobytes():
        return now[:0]
    added: Rows = now.copy()
    places = _places(before["key"].tolist(), now["key"].tolist())
    for name in _SUMMED:
        added[name][places] -= before[name]
    added["failures"]["count"][places] -= before["failures"]["count"]
    changed: Rows = added[(added["count"] | added["timed"] | added["errors"]) != 0]
    return changed


def _places(part: Sequence[int], whole: Sequence[int]) -> list[int]:
    places = []
    place = 0
    for key in part:
        while whole[place] != key:
            place += 1
        places.append(place)
        place += 1
    return places


def upper_ns(bucket: int) -> int:
    """Return the upper bound of a latency bucket; the last one has none, and has its lower."""
    return 1 << FIRST_BUCKET + min(bucket, BUCKETS - 2)


def percentile_ns(buckets: Sequence[int], share: float, longest_ns: int) -> float:
    """Return the latency that a share of calls does not exceed, within its bucket by proportion.

    0 if none was timed; never more than the longest.
    """
    wanted = share * sum(buckets)
    seen = 0.0
    for bucket, count in enumerate(buckets):
        if count and seen + count >= wanted:
            low = 0 if bucket == 0 else 1 << FIRST_BUCKET + bucket - 1
            high = longest_ns if bucket == BUCKETS - 1 else 1 << FIRST_BUCKET + bucket
            return float(min(low + (high - low) * (wanted - seen) / count, longest_ns))
        seen += count
    return 0.0
