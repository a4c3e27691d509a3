"""Pressure, swap and speed of a fixed amount of work, in each arm at the same memory.

The arms are `suites.psi.arms`, the load is `suites.psi.load`. An arm whose compressed swap
took more memory than its share is a failure, not a measurement.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hyperbox.errors import WorkloadError
from suites.observing import observed
from suites.program import Measured, run_program, seed
from suites.psi.arms import ARMS, FastSwap
from suites.psi.load import HIGH, MIXED, NORMAL, Place, PressureLoad, place, running
from suites.squeeze import MEBIBYTE

__all__ = ["check_load", "check_share", "check_small_pages", "of_mix", "of_service"]

_LOADS = {"high": HIGH, "mixed": MIXED, "normal": NORMAL}
_ENOUGH_STALL_US = 50_000  # less in the stock arm would be noise around nothing
_ENOUGH_SWAPPED_PAGES = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one arm; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", required=True, choices=sorted(ARMS))
    parser.add_argument("--load", default="high", choices=sorted(_LOADS))
    chosen = parser.parse_args(argv)
    return run_program(lambda: _measure(chosen.arm, chosen.load))


def _measure(arm: str, load: str) -> Measured:
    with place() as where, ARMS[arm](where) as fast:
        measured = _work(where, _LOADS[load], fast)
    if load != "normal" and arm == "stock":
        check_load(measured.metrics)
    return measured


def _work(where: Place, load: PressureLoad, fast: FastSwap) -> Measured:
    notes: dict[str, object] = {
        "limit_mib": int(where.top.read("memory.max")) >> 20,
        "fast_swap": fast.kind,
    }
    with running(where, load, seed()) as work:
        uncharged, held = fast.used_mib(where), fast.held_mib(where)
        huge = _huge_mib(where)
        with observed(where.top.directory, where.disk) as found:
            work.go()
            result = work.result()
        huge = max(huge, _huge_mib(where))
        uncharged = max(uncharged, fast.used_mib(where))
        held = max(held, fast.held_mib(where))
    if load.small_pages:
        check_small_pages(huge)
    check_share(fast, uncharged)
    notes |= {"fast_swap_beside_the_limit_mib": round(uncharged, 2)}
    notes |= {"huge_pages_mib": huge}
    notes |= {"decisions": fast.decided()}
    metrics, explained = of_service(result) if load.steps else of_mix(result)
    metrics |= {"elapsed_us": result["elapsed_ns"] / 1e3, "fast_swap_max": held}
    return Measured(found.metrics() | metrics, notes | explained)


def of_service(result: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, object]]:
    """Return metrics and notes of the service's requests."""
    metrics = {
        "work_rate": result["requests"] / (result["elapsed_ns"] / 1e9),
        "p99_latency_us": result["p99_ns"] / 1e3,
    }
    return metrics, {"p50_us": result["p50_ns"] / 1e3, "late_requests": result["late"]}


def of_mix(result: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, object]]:
    """Return metrics and notes of stress-ng's stressors."""
    metrics = {"work_rate": result["operations"] / (result["elapsed_ns"] / 1e9)}
    return metrics, {"seconds": {one["stressor"]: one["wall_s"] for one in result["stressors"]}}


def _huge_mib(where: Place) -> float:
    return where.top.counters("memory.stat").get("anon_thp", 0) / MEBIBYTE


def check_load(metrics: Mapping[str, float]) -> None:
    """Refuse a baseline without pressure: a reduction of nothing cannot be measured."""
    stall_us, pages = metrics["memory_some_us"], metrics["disk_swap_out"]
    if stall_us < _ENOUGH_STALL_US:
        raise WorkloadError(f"the load stalled {stall_us:.0f} us, less than {_ENOUGH_STALL_US}")
    if pages < _ENOUGH_SWAPPED_PAGES:
        raise WorkloadError(
            f"the load swapped {pages:.0f} pages, less than {_ENOUGH_SWAPPED_PAGES}"
        )


def check_small_pages(huge_mib: float) -> None:
    """Refuse a start in which the kernel gave the load memory that it did not ask for."""
    if huge_mib:
        raise WorkloadError(f"huge pages took {huge_mib:g} MiB of the load's memory: it uses none")


def check_share(fast: FastSwap, beside_mib: float) -> None:
    """Refuse an arm whose compressed swap took memory that the others do not have."""
    if beside_mib > fast.share_mib + fast.lenience_mib:
        raise WorkloadError(
            f"{fast.kind} took {beside_mib:.1f} MiB beside the limit, its share is {fast.share_mib}"
        )


if __name__ == "__main__":
    sys.exit(main())
