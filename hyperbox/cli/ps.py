"""``hyperbox ps``: the containers that run, or all."""

from __future__ import annotations

import argparse
import json
import shlex

from rich.table import Table

from hyperbox.console import TerminalConsole
from hyperbox.errors import ExitCode
from hyperbox.printing import one_line
from hyperbox.runtime.registry import ContainerEntry, ContainerRegistry

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "ps",
        help="list containers",
        description="Lists the containers of 'hyperbox run' that run.",
    )
    parser.add_argument("--all", "-a", action="store_true", help="those that have ended too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    entries = [
        one for one in ContainerRegistry().entries() if arguments.all or one.state == "running"
    ]
    if arguments.json:
        print(json.dumps([_facts(entry) for entry in entries]))
        return ExitCode.PASS
    table = Table("Name", "State", "Created", "Command")
    for entry in entries:
        state = entry.state if entry.status is None else f"{entry.state} ({entry.status})"
        command = one_line(shlex.join(entry.command))
        table.add_row(entry.name, state, entry.created, command)
    TerminalConsole().print(table if entries else "no containers")
    return ExitCode.PASS


def _facts(entry: ContainerEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "state": entry.state,
        "status": entry.status,
        "created": entry.created,
        "command": list(entry.command),
        "rootfs": entry.rootfs,
    }
