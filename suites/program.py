"""How a measuring program ends: one JSON line, or a skip, or one error line.

The line has the metrics of one arm in one block (see `hyperbox.harness.model`).

SIGTERM and SIGINT become exceptions, so that everything changed is put back.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from hyperbox import interruption
from hyperbox.errors import HyperboxError, KernelFeatureMissing, MissingDependency

__all__ = ["SKIP_STATUS", "Measured", "run_program", "seed"]

SKIP_STATUS = 77
"""Exit status that says "this kernel cannot do it"."""


@dataclass(frozen=True)
class Measured:
    """What a program found: numbers by metric, and facts that explain them."""

    metrics: Mapping[str, float]
    notes: Mapping[str, object] = field(default_factory=dict)


def seed() -> int:
    """Return the block's random seed."""
    return int(os.environ.get("HYPERBOX_SEED", "0"))


def run_program(measure: Callable[[], Measured]) -> int:
    """Measure, print the result as the last line, and give the exit status.

    Only the kernel's own answer is a skip: where a program is missing that would have asked it,
    nothing is known of the kernel.
    """
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        with interruption.reraise_lost_signals():
            measured = measure()
    except HyperboxError as error:
        asked = not isinstance(error.__cause__, MissingDependency)
        if isinstance(error, KernelFeatureMissing) and asked:
            print(json.dumps({"skip": error.message}), flush=True)
            return SKIP_STATUS
        cause = error if asked else error.__cause__
        hint = getattr(cause, "hint", "")
        remedy = f" ({hint})" if hint else ""
        print(f"error: {error.message}{remedy}", file=sys.stderr, flush=True)
        return 1
    result = {"metrics": dict(measured.metrics), "notes": dict(measured.notes)}
    print(json.dumps(result, sort_keys=True, allow_nan=False), flush=True)
    return 0


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave by an exception; later signals must not cut the tidying short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise SystemExit(128 + number)
