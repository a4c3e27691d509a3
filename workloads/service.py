"""A service with a hot and a cold set of pages that answers requests: what its users feel.

Run alone, ``python3 -m workloads.service --mib 64 --requests 1000`` prints one JSON object.
Same options, same seed: same pages touched in the same order.

Requests come either at a rate, whether the one before is done or not, and latency counts from
when a request was due (a late service makes the next ones late too); or one after the other
with time to think in between, and latency counts from its start. The work is fixed in both.

With ``--stepwise`` it prints ``started``, ``filled``, ``warm`` and the result, one line each,
and waits for a line of input before each step, so that a measuring parent can read counters
in between.
"""

from __future__ import annotations

import json
import math
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from mmap import mmap
from pathlib import Path

if __package__ in (None, ""):  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workloads import command_line, memory_walk

__all__ = ["ServicePlan", "ServiceResult", "main", "serve"]

_LONGEST_S = 86_400
_RATIO_OPTIONS = ("hot_fraction", "hot_share", "write_share")


@dataclass(frozen=True)
class ServicePlan:
    """What is served.

    `mib` of memory are filled; `hot_fraction` of its pages take `hot_share` of the touches,
    of which `write_share` write. A request touches `touches` pages. `rate` is requests a
    second; 0 means one after the other, `think_us` apart. `warm_up` requests are served
    before those that count, one after the other, after `settle_s` of rest.
    """

    mib: int = field(default=64, metadata={"help": "memory of the service"})
    requests: int = field(default=1000, metadata={"help": "requests that are measured"})
    touches: int = field(default=8, metadata={"help": "pages that a request touches"})
    rate: float = field(default=0.0, metadata={"help": "requests a second; 0: one by one"})
    think_us: int = field(default=0, metadata={"help": "rest between requests, one by one"})
    warm_up: int = field(default=0, metadata={"help": "requests before those that count"})
    settle_s: float = field(default=0.0, metadata={"help": "rest before the warm-up"})
    hot_fraction: float = field(default=0.35, metadata={"help": "of the pages that are hot"})
    hot_share: float = field(default=0.9, metadata={"help": "of the touches that are of hot pages"})
    write_share: float = field(default=0.5, metadata={"help": "of the touches that write"})
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.mib, self.requests, self.touches) < 1:
            raise ValueError("mib, requests and touches must be above 0")
        if not math.isfinite(self.rate) or not math.isfinite(self.settle_s):
            raise ValueError("rate and settle-s are numbers")
        if self.settle_s > _LONGEST_S or 0 < self.rate < 1 / _LONGEST_S:
            raise ValueError(f"settle-s, and the time between requests, are at most {_LONGEST_S} s")
        if min(self.rate, self.think_us, self.warm_up, self.settle_s) < 0:
            raise ValueError("rate, think-us, warm-up and settle-s cannot be negative")
        if not all(0 <= getattr(self, name) <= 1 for name in _RATIO_OPTIONS):
            raise ValueError("hot-fraction, hot-share and write-share lie between 0 and 1")


@dataclass(frozen=True)
class ServiceResult:
    """What the requests took; `late` counts those that began after they were due."""

    requests: int
    touches: int
    elapsed_ns: int
    p50_ns: int
    p99_ns: int
    max_ns: int
    late: int


def touched(plan: ServicePlan) -> array[int]:
    """Return the offsets of every touch, the warm-up's first; inverted ones are writes."""
    walk = memory_walk.WalkPlan(
        plan.mib,
        (plan.warm_up + plan.requests) * plan.touches,
        seed=plan.seed,
        hot_fraction=plan.hot_fraction,
        hot_share=plan.hot_share,
        write_share=plan.write_share,
    )
    return memory_walk.offsets(walk)


def serve(plan: ServicePlan, memory: mmap, sequence: Sequence[int]) -> ServiceResult:
    """Serve a request for every `touches` offsets, and give what they took."""
    now = time.monotonic_ns
    gap_ns = int(1e9 / plan.rate) if plan.rate else 0
    latencies = array("q")
    late = 0
    started = due = now()
    for first in range(0, len(sequence), plan.touches):
        if gap_ns:
            due += gap_ns
            ahead = due - now()
            if ahead > 0:
                time.sleep(ahead / 1e9)
            else:
                late += 1
        else:
            due = now()
        for offset in sequence[first : first + plan.touches]:
            if offset < 0:
                memory[~offset] = 1
            else:
                memory[offset]
        latencies.append(now() - due)
        if plan.think_us and not gap_ns:
            time.sleep(plan.think_us / 1e6)
    elapsed = now() - started
    ordered = sorted(latencies)
    return ServiceResult(
        len(latencies),
        len(sequence),
        elapsed,
        memory_walk.percentile(ordered, 50),
        memory_walk.percentile(ordered, 99),
        ordered[-1],
        late,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Serve as the options say; return the exit code."""
    parser = command_line.parser(
        "service", __doc__, "python3 -m workloads.service --mib 64 --requests 1000"
    )
    for name, setting in ServicePlan.__dataclass_fields__.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(setting.default),
            default=setting.default,
            help=setting.metadata.get("help", "of the contents and the order"),
        )
    parser.add_argument("--stepwise", action="store_true", help="wait for the parent's word")
    options = vars(parser.parse_args(argv))
    stepwise = options.pop("stepwise")
    try:
        plan = ServicePlan(**options)
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps(asdict(_run(plan, stepwise))), flush=True)
    return 0


def _run(plan: ServicePlan, stepwise: bool) -> ServiceResult:
    sequence = touched(plan)
    memory_walk.step("started", stepwise)
    memory = memory_walk.fill(memory_walk.WalkPlan(plan.mib, 1, seed=plan.seed))
    memory_walk.step("filled", stepwise)
    time.sleep(plan.settle_s)
    warm = plan.warm_up * plan.touches
    if warm:
        serve(replace(plan, rate=0.0), memory, sequence[:warm])
    memory_walk.step("warm", stepwise)
    return serve(plan, memory, sequence[warm:])


if __name__ == "__main__":
    sys.exit(command_line.ended(main, small_pages=True))
