"""A fixed number of equal units of work, timed: what the harness is tried on.

Three arms: ``base``, ``again`` (the same) and ``planted`` (half a percent fewer units: a
planted improvement, so that a gate that finds it passes).

Each arm makes a start of its own: see `suites.harness.start`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence

from suites.harness.load import BackgroundLoad
from suites.program import Measured, run_program

__all__ = ["ARMS", "LOADS", "PLANTED", "main", "measure", "units_of"]

ARMS = ("base", "again", "planted")
PLANTED = -0.005
"""How much more the planted arm does, as a fraction."""

LOADS = {
    "processor": "suites.harness.computing.PROCESSOR",
    "system_calls": "suites.harness.computing.SYSTEM_CALLS",
    "processes": "suites.harness.computing.PROCESSES",
    "tmpfs": "suites.harness.storing.TMPFS",
    "page_cache": "suites.harness.storing.PAGE_CACHE",
    "erofs": "suites.harness.storing.EROFS",
    "swap": "suites.harness.squeezed.SWAP",
    "network": "suites.harness.linked.NETWORK",
}
"""Where each load is defined; only the one that is run is imported."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one arm; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", required=True, choices=sorted(LOADS))
    parser.add_argument("--arm", required=True, choices=ARMS)
    options = parser.parse_args(argv)
    module, _, name = LOADS[options.load].rpartition(".")
    load = getattr(importlib.import_module(module), name)
    return run_program(lambda: measure(load, options.arm))


def units_of(load: BackgroundLoad, arm: str) -> int:
    """Return how many units an arm does."""
    return load.units + (round(load.units * PLANTED) if arm == "planted" else 0)


def measure(load: BackgroundLoad, arm: str) -> Measured:
    """Set the load up, do the units, return what that took."""
    units = units_of(load, arm)
    with load.set_up() as ready:
        for _ in range(load.warm_up):
            ready.unit()
        before = ready.counters()
        began = time.monotonic_ns()
        for _ in range(units):
            ready.unit()
        elapsed_ns = time.monotonic_ns() - began
        after = ready.counters()
    grown = {name: after[name] - before[name] for name in before}
    planted = 100 * (units / load.units - 1)
    metrics = {"elapsed_ns": elapsed_ns, "units": units, "planted": round(planted, 6), **grown}
    return Measured(metrics)


if __name__ == "__main__":
    sys.exit(main())
