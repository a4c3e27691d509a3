"""How soon a system call is seen by a reader of the daemon's stream, and what memory that takes.

The daemon traces the whole machine. One process sleeps again and again; its calls, slow ones, are
those whose way is timed: from the end in the span to the arrival of the line at a reader of
``/traces/stream``. Another computes and makes some thousand calls a second, so that the processor
is never idle. (At rates where only counts fit the budget no calls are reported one by one, and what
a reader sees are windows, once a second.) The collector accepts connections and never answers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.processes import spawn, stop
from suites.daemon import Daemon, running_daemon
from suites.program import Measured, run_program

__all__ = ["main", "percentile"]

_SETTLED_S, _MEASURED_S = 10.0, 10.0  # the governor goes up after five windows
_LATE_NS = 100_000_000
_FEWEST = 100
_BUDGET = "20"  # percent: an emulated processor takes about ten times as long for Python
_RESTS = "import time\nwhile True: time.sleep(.02)"
_BUSY = "while True:\n  sum(range(20000))\n  open('/dev/null').close()"
_MAP = re.compile(r"^memlock:\s*(\d+)", re.MULTILINE)


class _Reader(threading.Thread):
    """Reads the stream of one process' calls, and notes how old they are when they arrive."""

    def __init__(self, path: Path, process: int) -> None:
        super().__init__(name="reader", daemon=True)
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(path))
        question = (
            f"GET /traces/stream?process={process} HTTP/1.1\r\nHost: localhost\r\n"
            "Accept: application/x-ndjson\r\n\r\n"
        )
        self._connection.sendall(question.encode())
        self.ages: list[tuple[int, int]] = []
        """Arrival and age of each call's span, in nanoseconds."""
        self.notices: list[str] = []

    def run(self) -> None:
        """Read until the connection is shut."""
        with self._connection.makefile("rb") as stream:
            for line in stream:
                arrived_ns = time.time_ns()
                if not line.startswith(b"{"):  # HTTP: the head, and sizes of chunks
                    continue
                said = json.loads(line)
                self.notices += said.keys() - {"resourceSpans", "cursor"}
                self.ages += [(arrived_ns, arrived_ns - end_ns) for end_ns in _ends(said)]

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self.join()
        self._connection.close()


def percentile(values: Sequence[int], share: float) -> int:
    """Return the smallest value that at least `share` of all do not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def main() -> int:
    """Measure; return the exit status."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    return run_program(_measure)


def _measure() -> Measured:
    with (
        _silent_collector() as endpoint,
        running_daemon(
            ["--trace", "--trace-budget", _BUDGET], {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        ) as daemon,
        _running(_RESTS) as resting,
        _running(_BUSY),
    ):
        reader = _Reader(daemon.path, resting.pid)
        reader.start()
        time.sleep(_SETTLED_S)
        since_ns = time.time_ns()
        time.sleep(_MEASURED_S)
        reader.close()
        resident, maps = _memory(daemon)
        stats = json.loads(daemon.get("/traces/stats").body)
    ages = [age_ns for arrived_ns, age_ns in reader.ages if arrived_ns >= since_ns]
    if len(ages) < _FEWEST:
        raise WorkloadError(f"{len(ages)} calls arrived; {reader.notices}; {stats}")
    metrics = {
        "late": 100 * sum(age_ns > _LATE_NS for age_ns in ages) / len(ages),
        "latency_p99": percentile(ages, 0.99) / 1e6,
        "latency_p50": percentile(ages, 0.5) / 1e6,
        "memory": resident + maps,
        "calls_seen": float(len(ages)),
    }
    notes = {"maps_mib": maps, "worst_ms": max(ages) / 1e6, "stats": stats}
    return Measured(metrics, {**notes, "notices": reader.notices})


def _ends(said: dict[str, list[dict[str, list[dict[str, list[dict[str, str]]]]]]]) -> Iterator[int]:
    """Yield when the calls of a TracesData object ended, in Unix nanoseconds."""
    for resource in said.get("resourceSpans", ()):
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                if span["name"] == "clock_nanosleep":
                    yield int(span["endTimeUnixNano"])


def _memory(daemon: Daemon) -> tuple[float, float]:
    """Return the daemon's resident memory at its peak, and what its BPF maps take, in MiB."""
    directory = Path(f"/proc/{daemon.process.pid}")
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", (directory / "status").read_text())
    maps: dict[str, int] = {}
    for described in (directory / "fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            text = described.read_text()
            if "map_type:" in text and (found := _MAP.search(text)):
                maps[text[text.index("map_type:") :]] = int(found[1])
    return int(peak) / 1024, sum(maps.values()) / 2**20


@contextlib.contextmanager
def _running(text: str) -> Iterator[subprocess.Popen[bytes]]:
    process = spawn((sys.executable, "-c", text))
    try:
        yield process
    finally:
        stop(process)


@contextlib.contextmanager
def _silent_collector() -> Iterator[str]:
    """Give the endpoint of a peer that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)  # connections are made by the kernel, and nobody reads them
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


if __name__ == "__main__":
    sys.exit(main())
