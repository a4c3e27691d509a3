"""Walks over anonymous memory with a hot and a cold part: the load of the PSI suite.

Run alone, ``python3 workloads/memory_walk.py --mib 64 --accesses 10000`` prints one JSON
object. Same options, same seed: same pages touched in the same order.

The walk has three steps, so that a measuring parent can read counters between them. With
``--stepwise`` it prints ``started``, ``filled`` and the result, one line each, and waits
for a line of input before filling and before walking.

Pages are a quarter zero, a half text-like and a quarter random bytes, different in every
page: about what zram makes of real heaps (2 to 3 times smaller). No huge pages: one page
is one fault, and Python's own heap stays as small as it is.
"""

from __future__ import annotations

import json
import math
import mmap
import random
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if __package__ in (None, ""):  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workloads import command_line

__all__ = [
    "WalkPlan",
    "WalkResult",
    "fill",
    "main",
    "offsets",
    "pages",
    "percentile",
    "step",
    "walk",
]

PAGE = 4096
_TEMPLATES = 64  # different page contents; enough that no page equals its neighbours
_COUNTER = PAGE // 2  # where an access writes: inside the text
_WORDS = b"container kernel memory pressure swap page reclaim stall latency image layer ".split()


@dataclass(frozen=True)
class WalkPlan:
    """What is walked.

    `hot_fraction` of the pages take `hot_share` of the accesses; `write_share` of all
    accesses write. After every `burst` accesses the walk sleeps `pause_us`. It ends after
    `accesses`, or, with `seconds` above 0, goes round until that time is over.
    """

    mib: int
    accesses: int
    seed: int = 0
    hot_fraction: float = 0.35
    hot_share: float = 0.9
    write_share: float = 0.5
    burst: int = 16
    pause_us: int = 0
    seconds: float = 0.0

    @property
    def page_count(self) -> int:
        """Pages walked over."""
        return (self.mib << 20) // PAGE


@dataclass(frozen=True)
class WalkResult:
    """What a walk took; latencies are of single accesses."""

    accesses: int
    elapsed_ns: int
    p50_ns: int
    p99_ns: int
    max_ns: int


def pages(seed: int) -> tuple[bytes, ...]:
    """Return the page contents that the memory is filled with."""
    source = random.Random(f"pages {seed}")
    result = []
    for _ in range(_TEMPLATES):
        text = b" ".join(source.choices(_WORDS, k=PAGE // 8))[: PAGE // 2]
        noise = source.randbytes(PAGE // 4)
        result.append((noise + text.ljust(PAGE // 2)).ljust(PAGE, b"\0"))
    return tuple(result)


def offsets(plan: WalkPlan) -> array[int]:
    """Return the byte offset of every access in order; a negative one, inverted, is a write.

    Hot pages are spread over the whole memory, so that reading around a page brings in
    cold ones, as on real heaps.
    """
    source = random.Random(f"walk {plan.seed}")
    order = list(range(plan.page_count))
    source.shuffle(order)
    hot = max(1, round(plan.page_count * plan.hot_fraction))
    result = array("q")
    for _ in range(plan.accesses):
        among = hot if source.random() < plan.hot_share else plan.page_count
        offset = order[int(source.random() * among)] * PAGE + _COUNTER
        result.append(~offset if source.random() < plan.write_share else offset)
    return result


def fill(plan: WalkPlan) -> mmap.mmap:
    """Return private anonymous memory of the plan's size, as a heap is, with every page written."""
    # Without flags Python maps it shared: that is tmpfs, swapped by other rules than a heap.
    memory = mmap.mmap(-1, plan.mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    contents = pages(plan.seed)
    for number in range(plan.page_count):
        memory[number * PAGE : (number + 1) * PAGE] = contents[number % _TEMPLATES]
        memory[number * PAGE : number * PAGE + 8] = number.to_bytes(8, "little")
    return memory


def walk(plan: WalkPlan, memory: mmap.mmap, sequence: array[int]) -> WalkResult:
    """Touch the pages and give the latencies."""
    now = time.monotonic_ns
    taken = array("q")
    started = now()
    end = started + int(plan.seconds * 1e9)
    while True:
        for first in range(0, len(sequence), plan.burst):
            for offset in sequence[first : first + plan.burst]:
                before = now()
                if offset < 0:
                    memory[~offset] = 1
                else:
                    memory[offset]
                taken.append(now() - before)
            if plan.pause_us:
                time.sleep(plan.pause_us / 1e6)
            if plan.seconds and now() >= end:
                break
        if now() >= end:
            break
    elapsed = now() - started
    ordered = sorted(taken)
    return WalkResult(
        len(taken), elapsed, percentile(ordered, 50), percentile(ordered, 99), ordered[-1]
    )


def percentile(ordered: Sequence[int], percent: float) -> int:
    """Return the nearest-rank percentile of sorted values."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def main(argv: Sequence[str] | None = None) -> int:
    """Walk as the options say; return the exit code."""
    parser = command_line.parser(
        "memory_walk", __doc__, "python3 -m workloads.memory_walk --mib 64 --accesses 10000"
    )
    for name, kind, default, said in (
        ("mib", command_line.whole(1), 64, "memory walked over"),
        (
            "accesses",
            command_line.whole(1),
            10_000,
            "pages touched in all, at least with --seconds",
        ),
        ("seed", command_line.whole(0), WalkPlan.seed, "of the contents and the order"),
        (
            "hot-fraction",
            command_line.number(0, 1),
            WalkPlan.hot_fraction,
            "of the pages that are hot",
        ),
        (
            "hot-share",
            command_line.number(0, 1),
            WalkPlan.hot_share,
            "of the accesses that are of hot pages",
        ),
        (
            "write-share",
            command_line.number(0, 1),
            WalkPlan.write_share,
            "of the accesses that write",
        ),
        ("burst", command_line.whole(1), WalkPlan.burst, "accesses between pauses"),
        ("pause-us", command_line.whole(0), WalkPlan.pause_us, "sleep after a burst"),
        ("seconds", command_line.number(0), WalkPlan.seconds, "go round for this long; 0: once"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=said)
    parser.add_argument("--stepwise", action="store_true", help="wait for the parent's word")
    options = vars(parser.parse_args(argv))
    stepwise = options.pop("stepwise")
    plan = WalkPlan(**options)
    sequence = offsets(plan)
    step("started", stepwise)
    memory = fill(plan)
    step("filled", stepwise)
    print(json.dumps(asdict(walk(plan, memory, sequence))), flush=True)
    return 0


def step(name: str, stepwise: bool) -> None:
    """Say where the workload is and wait for the parent's word, if it is led by one."""
    if not stepwise:
        return
    print(name, flush=True)
    if not sys.stdin.readline():
        raise SystemExit(f"{name}: the parent is gone")


if __name__ == "__main__":
    sys.exit(command_line.ended(main, small_pages=True))
