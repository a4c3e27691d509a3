"""Reads the files of a tree once each, over and over, at a steady rate: page cache for nothing.

What a backup, a log shipper or an image scan does to the memory of others. Run alone,
``python3 -m workloads.file_stream --mib 16`` prints one JSON object; without ``--mib`` it
reads until SIGTERM. Same options, same seed, same tree: same files in the same order.

With ``--stepwise`` it prints ``started`` and waits for a line of input before reading.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if __package__ in (None, ""):  # run by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workloads import command_line, memory_walk

__all__ = ["StreamPlan", "StreamResult", "files", "main", "stream"]

_CHUNK = 64 << 10
_LEAST_RATE = 0.001  # MiB a second


@dataclass(frozen=True)
class StreamPlan:
    """What is read: `mib` of the files of `tree` (0: no end), at `rate` MiB a second."""

    tree: Path
    mib: float = 0.0
    rate: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class StreamResult:
    """What was read."""

    bytes_read: int
    files_read: int
    elapsed_ns: int


def files(plan: StreamPlan) -> tuple[Path, ...]:
    """Return the tree's regular files in the order of the seed; links are left out."""
    found = [path for path in plan.tree.rglob("*") if path.is_file() and not path.is_symlink()]
    ordered = sorted(found)
    random.Random(f"stream {plan.seed}").shuffle(ordered)
    return tuple(ordered)


def stream(plan: StreamPlan, paths: Sequence[Path]) -> StreamResult:
    """Read until enough is read or KeyboardInterrupt."""
    started = time.monotonic_ns()
    done = [0, 0]
    with contextlib.suppress(KeyboardInterrupt):
        while not plan.mib or done[0] < plan.mib * (1 << 20):
            before = done[0]
            for path in paths:
                _read(path, plan, started, done)
                if plan.mib and done[0] >= plan.mib * (1 << 20):
                    break
            if done[0] == before:
                raise SystemExit(f"file_stream: nothing to read below {plan.tree}")
    return StreamResult(done[0], done[1], time.monotonic_ns() - started)


def _read(path: Path, plan: StreamPlan, started: int, done: list[int]) -> None:
    """Read a file in pieces, none ahead of the rate; `done` counts bytes and files.

    One that cannot be read, or is gone, is passed over.
    """
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_CHUNK):
                done[0] += len(piece)
                if plan.rate:
                    due = started + int(done[0] * 1e9 / (plan.rate * (1 << 20)))
                    time.sleep(max(due - time.monotonic_ns(), 0) / 1e9)
    except OSError:
        return
    done[1] += 1


def _rate(text: str) -> float:
    """Return a rate at which some file is read in a human's time."""
    rate = command_line.number(0)(text)
    if 0 < rate < _LEAST_RATE:
        raise argparse.ArgumentTypeError(f"{rate:g} MiB a second are not from {_LEAST_RATE:g}")
    return rate


def main(argv: Sequence[str] | None = None) -> int:
    """Read as the options say; return the exit code."""
    parser = command_line.parser(
        "file_stream", __doc__, "python3 -m workloads.file_stream --mib 16"
    )
    tree = Path(os.__file__).parent
    for name, kind, default, said in (
        ("mib", command_line.number(0), StreamPlan.mib, "how much; 0: until SIGTERM"),
        ("rate", _rate, StreamPlan.rate, "MiB a second; 0: no limit"),
        ("seed", command_line.whole(0), StreamPlan.seed, "of the order"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=said)
    parser.add_argument("--tree", type=Path, default=tree, help="directory whose files are read")
    parser.add_argument("--stepwise", action="store_true", help="wait for the parent's word")
    options = vars(parser.parse_args(argv))
    stepwise = options.pop("stepwise")
    plan = StreamPlan(**options)
    if not plan.tree.is_dir():
        parser.error(f"no directory {plan.tree}")
    paths = files(plan)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the usual end, with a result
    memory_walk.step("started", stepwise)
    print(json.dumps(asdict(stream(plan, paths))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(command_line.ended(main, small_pages=True))
