"""``hyperbox rm``: forgets containers that have ended, with their logs."""

from __future__ import annotations

import argparse

from hyperbox.cli.stop import stop
from hyperbox.errors import ConfigError
from hyperbox.printing import one_line
from hyperbox.runtime.registry import ContainerRegistry

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "rm",
        help="remove containers that have ended",
        description="Removes containers of 'hyperbox run --detach' that have ended, with their "
        "logs.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="or the beginning of it")
    parser.add_argument("--force", "-f", action="store_true", help="kill those that run")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    registry = ContainerRegistry()
    for entry in [registry.find(name) for name in arguments.names]:
        if entry.state == "running":
            if not arguments.force:
                raise ConfigError(
                    f"container {entry.name} runs", hint=f"hyperbox stop {entry.name}"
                )
            stop(entry, 0.0)
        elif entry.change is not None:
            raise ConfigError(
                f"container {entry.name} lost its hyperbox", hint="hyperbox doctor --repair"
            )
        registry.remove(entry.name)
        print(one_line(entry.name))
    return 0
