"""The pressure monitor as a process: one JSON line a sample on standard output.

``python3 -m hyperbox.memory.monitor`` needs nothing but the standard library, so that the
same monitor runs on hosts and in guests.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from hyperbox.linux.pressure import system_files
from hyperbox.memory.psi import DEFAULT_INTERVAL, Sample, Sampler

__all__ = ["describe", "main", "watch"]


def describe(sample: Sample, sampler: Sampler) -> dict[str, object]:
    """Give a sample as plain data: totals in us, averages in per cent."""
    facts: dict[str, object] = {"monotonic_ns": sample.monotonic_ns}
    for name, pressure in sample.pressures.items():
        facts[name] = asdict(pressure) | {
            "some_boxcar10": sampler.average(name, "some"),
            "full_boxcar10": sampler.average(name, "full"),
        }
    return facts


def watch(interval: float, count: int | None = None) -> Iterator[tuple[Sample, Sampler]]:
    """Sample the system's pressure for ever, or `count` times.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no PSI or it is disabled.
    """
    with system_files() as files:
        sampler = Sampler(files, interval=interval)
        taken = 0
        while count is None or taken < count:
            if taken:
                sampler.wait()
            yield sampler.sample(), sampler
            taken += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the monitor until it is interrupted or has taken ``--count`` samples."""
    parser = argparse.ArgumentParser(prog="hyperbox.memory.monitor", description=__doc__)
    parser.add_argument("--interval", type=float, default=DEFAULT_INTERVAL, help="seconds")
    parser.add_argument("--count", type=int, help="samples to take; by default no end")
    options = parser.parse_args(arguments)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        for sample, sampler in watch(options.interval, options.count):
            print(json.dumps(describe(sample, sampler)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
