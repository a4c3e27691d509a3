"""What tracer.bpf.c and Python share: structures, flags and causes of loss, byte for byte."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np

from hyperbox.linux.bpf_ring import HEADER

__all__ = [
    "BUCKETS",
    "CALL",
    "COUNTERS",
    "FIRST_BUCKET",
    "FLIGHT",
    "LIFE",
    "PATH",
    "RING_CALL",
    "SPILLED_NUMBERS",
    "TALLY",
    "Counter",
    "Stage",
    "Why",
]

BUCKETS = 20
"""Of a latency histogram."""
FIRST_BUCKET = 8
"""The first has what is below 2^8 ns, each further one what is below twice as much."""
SPILLED_NUMBERS = 1024
COUNTERS = 8
PATH = 256

TALLY = np.dtype(
    [
        ("key", "<u8"),
        ("count", "<u8"),
        ("sum_ns", "<u8"),
        ("max_ns", "<u8"),
        ("timed", "<u4"),
        ("errors", "<u4"),
        ("failures", [("number", "<u4"), ("count", "<u4")], 5),
        ("buckets", "<u4", BUCKETS),
    ]
)
"""Calls of one number by one process."""

FLIGHT = np.dtype(
    [("key", "<u8"), ("start_ns", "<u8"), ("tick", "<u8"), ("thread", "<u4"), ("zero", "<u4")]
)
"""A call that has entered and not returned."""

_CALL = [
    ("start_ns", "<u8"),
    ("duration_ns", "<u8"),
    ("result", "<i8"),
    ("key", "<u8"),
    ("thread", "<u4"),
    ("why", "<u4"),
]
CALL = np.dtype(_CALL)
"""A single call."""
RING_CALL = np.dtype([("length", "<u4"), ("page", "<u4"), *_CALL])
assert RING_CALL.itemsize == CALL.itemsize + HEADER

LIFE = np.dtype(
    [
        ("time_ns", "<u8"),
        ("start_ns", "<u8"),
        ("cgroup", "<u8"),
        ("kind", "<u4"),
        ("process", "<u4"),
        ("other", "<u4"),
        ("code", "<i4"),
        ("comm", "S16"),
    ]
)
"""A step in the life of a process; the path that it executes may follow."""


class Why(IntFlag):
    """Why a single call was reported, and how its start is known."""

    SLOW = 1
    FAILED = 2
    EXEMPLAR = 4
    EVERY = 8
    APPROXIMATE = 16


class Stage(IntEnum):
    """What happened to a process."""

    FORKED = 1
    EXECUTED = 2
    RENAMED = 3
    EXITED = 4


class Counter(IntEnum):
    """What programs count for each processor."""

    SKIPPED = 0
    SPILLED = 1
    RING_FULL = 2
    RATE_LIMITED = 3
    SLOT_TAKEN = 4
    LIVES_FULL = 5
    PID_UNKNOWN = 6
