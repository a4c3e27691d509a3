"""``hyperbox stop``: ends containers, at first politely."""

from __future__ import annotations

import argparse
import signal
import time

from hyperbox.errors import HarnessError
from hyperbox.printing import one_line
from hyperbox.runtime.registry import ContainerEntry, ContainerRegistry

__all__ = ["add_parser", "stop"]

_INTERVAL_S = 0.05
_KILLED_S = 30.0  # for the hyperbox that holds it to tidy up


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "stop",
        help="end containers",
        description="Sends SIGTERM to each container, and SIGKILL if it runs on.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="or the beginning of it")
    parser.add_argument(
        "--time", "-t", type=float, default=10.0, metavar="S", help="seconds between (default: 10)"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    for entry in [ContainerRegistry().find(name) for name in arguments.names]:
        stop(entry, arguments.time)
        print(one_line(entry.name))
    return 0


def stop(entry: ContainerEntry, patience_s: float) -> None:
    """End a container that runs; return when its hyperbox has tidied up.

    Raises
    ------
    ConfigError
        If it does not run.
    HarnessError
        If it cannot be ended.
    """
    runtime = entry.runtime()
    for number, limit_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, _KILLED_S)):
        try:
            runtime.signal(entry.name, number)
        except HarnessError:
            if runtime.knows(entry.name):
                raise
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if not _runs(entry.name):
                return
            time.sleep(_INTERVAL_S)
    raise HarnessError(f"container {entry.name} does not end", hint="see hyperbox doctor")


def _runs(name: str) -> bool:
    return any(one.name == name and one.state == "running" for one in ContainerRegistry().entries())
