"""A fixed number of equal units of work, timed: what the harness is tried on.

Three arms: ``base``, ``again`` (the same) and ``planted`` (half a percent fewer units: a
planted improvement, so that a gate that finds it passes).

Arms of a block share their start, so two equal ones would do the same to the nanosecond and
prove nothing. Here every arm makes a start of its own, out of the block's seed and its name:
phase, environment size, free pages, and address layouts by a new process. What the arms
differ by is then what starts differ by, which is more than what gates usually meet.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import mmap
import os
import random
import sys
import time
from collections.abc import Sequence

from hyperbox.errors import WorkloadError
from hyperbox.linux.random_pool import stir
from hyperbox.processes import run
from suites.harness.load import Load
from suites.psi.program import Measured, run_program, seed

__all__ = ["ARMS", "LOADS", "PLANTED", "main", "measure", "units_of"]

ARMS = ("base", "again", "planted")
PLANTED = -0.005
"""How much more the planted arm does, as a fraction."""

LOADS = {
    "processor": "computing.PROCESSOR",
    "system_calls": "computing.SYSTEM_CALLS",
    "processes": "computing.PROCESSES",
    "tmpfs": "storing.TMPFS",
    "page_cache": "storing.PAGE_CACHE",
    "erofs": "storing.EROFS",
    "swap": "squeezed.SWAP",
    "network": "linked.NETWORK",
}
"""Where each load is defined; only the one that is run is imported."""

_TIMEOUT_S = 240.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one arm; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", required=True, choices=sorted(LOADS))
    parser.add_argument("--arm", required=True, choices=ARMS)
    parser.add_argument("--started", action="store_true", help="measure: this is the own start")
    options = parser.parse_args(argv)
    if not options.started:
        return _start(options.load, options.arm)
    module, _, name = LOADS[options.load].partition(".")
    load = getattr(importlib.import_module(f"suites.harness.{module}"), name)
    return run_program(lambda: measure(load, options.arm))


def units_of(load: Load, arm: str) -> int:
    """Give how many units an arm does."""
    return load.units + (round(load.units * PLANTED) if arm == "planted" else 0)


def measure(load: Load, arm: str) -> Measured:
    """Set the load up, do the units, give what that took."""
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


def _start(load: str, arm: str) -> int:
    """Run the arm from a start of its own."""
    digest = hashlib.sha256(f"{seed()}/{arm}".encode()).digest()
    dice = random.Random(int.from_bytes(digest, "big"))  # noqa: S311 - not a secret
    stir(digest)
    with contextlib.closing(mmap.mmap(-1, dice.randrange(1, 1024) * mmap.PAGESIZE)) as noise:
        for offset in range(0, len(noise), mmap.PAGESIZE):
            noise[offset] = 1
    time.sleep(dice.random() * 0.02)
    environment = {
        name: os.environ[name]
        for name in ("HYPERBOX_SEED", "PYTHONPATH", "PYTHONHASHSEED")
        if name in os.environ
    }
    environment["HYPERBOX_PADDING"] = "x" * dice.randrange(2048)
    program = [sys.executable, "-m", "suites.harness.work", "--load", load, "--arm", arm]
    done = run([*program, "--started"], timeout=_TIMEOUT_S, environment=environment, check=False)
    sys.stderr.write(done.stderr.decode(errors="replace"))
    sys.stdout.write(done.stdout.decode(errors="replace"))
    if done.status < 0:
        raise WorkloadError(f"the load was ended by signal {-done.status}")
    return done.status


if __name__ == "__main__":
    sys.exit(main())
