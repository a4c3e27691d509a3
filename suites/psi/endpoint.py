"""What the daemon's endpoint answers while a load runs, compared with the kernel's files.

A client asks over HTTP again and again; before and after each answer the files are read
without the product's code. Every value that cannot have been the kernel's is counted.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperbox.errors import WorkloadError
from hyperbox.linux.pressure import PROC_PRESSURE, Resource
from suites.daemon import Daemon, HttpAnswer, running_daemon
from suites.judge import Judge
from suites.program import Measured, run_program, seed
from suites.psi.reference import Moment, RawReader, total_is_right
from suites.squeeze import squeeze, walker

__all__ = ["EndpointJudge"]

_QUESTIONS = 8
_PAUSE_S = 2.0
_PROMISED = ("some_cpu_us", "some_memory_us", "full_memory_us")
_ENDED_S = 1.0
_NAMES = {"waiting": "some", "stalled": "full"}
_TWIN = re.compile(r"^node_pressure_(\w+)_(waiting|stalled)_seconds_total (\S+)$", re.MULTILINE)
_LATENCY_NS = 5_000_000


class EndpointJudge(Judge):
    """Holds answers against the kernel's files, as they were before and after."""

    def json(self, before: Moment, answer: HttpAnswer, after: Moment) -> None:
        """Judge an answer of the JSON endpoint."""
        self.expect(answer.status == 200, f"status {answer.status}")
        self.expect(answer.kind.startswith("application/json"), f"type {answer.kind}")
        said: dict[str, Any] = json.loads(answer.body)
        self.expect(said.get("available") is True, "pressure is not available")
        for name in _PROMISED:
            self.expect(name in said, f"{name} is missing")
        for key in before.totals_us:
            name = f"{key[1]}_{key[0]}"
            total = said.get(f"{name}_us", -1)
            self.expect(total_is_right(before, total, after, key), f"{name}_us is {total}")
            self._average(said.get("avg10", {}), name, before.avg10[key], after.avg10[key])
        rows = said.get("history", [])
        self.expect(0 < len(rows) <= 100, f"{len(rows)} samples in the history")

    def _average(self, averages: Mapping[str, Any], name: str, before: float, after: float) -> None:
        """Judge an average of the kernel's: it changes every 2 s, so it is one of two."""
        kernel = averages.get(name, {}).get("kernel", -1.0)
        low, high = sorted((before, after))
        self.expect(low <= kernel <= high, f"avg10 of {name} is {kernel}, not {low} ... {high}")

    def twin(self, before: Moment, answer: HttpAnswer, after: Moment) -> None:
        """Judge an answer of the metrics endpoint."""
        self.expect(answer.status == 200, f"/metrics: status {answer.status}")
        found = _TWIN.findall(answer.body)
        self.expect(len(found) >= len(_PROMISED), f"/metrics: {len(found)} pressure counters")
        for resource, word, value in found:
            key = (resource, _NAMES[word])
            total = round(float(value) * 1e6)
            right = total_is_right(before, total, after, key)
            self.expect(right, f"/metrics: {resource} {word} is {total}")


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def _measure() -> Measured:
    names = [resource for resource in Resource if (PROC_PRESSURE / resource).exists()]
    reader = RawReader({str(name): Path(PROC_PRESSURE, name) for name in names})
    judge = EndpointJudge()
    walk = ["--mib", "24", "--accesses", "20000", "--pause-us", "4000", "--seconds", "3600"]
    with (
        running_daemon() as daemon,
        squeeze(limit_mib=20, disk_mib=48, latency_ns=_LATENCY_NS) as place,
        walker(place.group, [*walk, "--seed", str(seed())]) as load,
    ):
        load.go()
        load.expect("filled")
        load.go()
        first = reader.read()
        latencies = [_asked(daemon, reader, judge) for _ in range(_QUESTIONS)]
        last = reader.read()
        status, seconds = daemon.end()
    judge.expect(status == 0, f"SIGTERM ended the daemon with {status}")
    judge.expect(seconds < _ENDED_S, f"the daemon took {seconds:.2f} s to end")
    grown = {key: last.totals_us[key] - first.totals_us[key] for key in first.totals_us}
    if not grown.get(("memory", "some"), 0):
        raise WorkloadError("no memory pressure while the endpoint was asked")
    metrics = {
        "values": float(judge.compared),
        "answers": float(2 * _QUESTIONS),
        "worst_answer_ms": max(latencies),
        "end_ms": seconds * 1e3,
        "memory_stall_us": float(grown["memory", "some"]),
    }
    return judge.measured(metrics)


def _asked(daemon: Daemon, reader: RawReader, judge: EndpointJudge) -> float:
    """Ask both endpoints once; give the milliseconds of the JSON answer."""
    before = reader.read()
    began = time.monotonic()
    answer = daemon.get("/metrics/memory/psi")
    took = time.monotonic() - began
    between = reader.read()
    judge.json(before, answer, between)
    twin = daemon.get("/metrics")
    judge.twin(between, twin, reader.read())
    time.sleep(_PAUSE_S)
    return took * 1e3


if __name__ == "__main__":
    sys.exit(main())
