"""``hyperbox logs``: what a container in the background printed."""

from __future__ import annotations

import argparse
import sys
import time

from hyperbox.errors import ConfigError, ExitCode
from hyperbox.foreign import open_regular
from hyperbox.runtime.registry import ContainerRegistry

__all__ = ["add_parser"]

_INTERVAL_S = 0.2
_PIECE = 1 << 16


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "logs",
        help="print what a container in the background printed",
        description="Prints what a container of 'hyperbox run --detach' printed, both streams.",
    )
    parser.add_argument("name", metavar="NAME", help="or the beginning of it")
    parser.add_argument(
        "--follow", "-f", action="store_true", help="go on until the container ends"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    registry = ContainerRegistry()
    entry = registry.find(arguments.name)
    path = registry.log(entry.name)
    if not path.exists():
        raise ConfigError(
            f"container {entry.name} has no log: it runs in the foreground",
            hint="hyperbox run --detach",
        )
    with open_regular(path) as (handle, _), open(handle, "rb", closefd=False) as stream:
        while True:
            running = arguments.follow and registry.find(entry.name).state == "running"
            while data := stream.read(_PIECE):
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            if not running:
                return ExitCode.PASS
            time.sleep(_INTERVAL_S)
