"""``hyperbox guests``: list, lock and update the Debian packages that guests are made of."""

from __future__ import annotations

import argparse
import json

from rich.table import Table

from hyperbox.cli.kernels import mirror_action
from hyperbox.console import TerminalConsole
from hyperbox.errors import ExitCode
from hyperbox.harness.lab.guest_lock import (
    guest_archive,
    guest_lock_path,
    moved_packages,
    pinned,
    read_guest_lock,
    resolve_guests,
    write_guest_lock,
)
from hyperbox.harness.lab.layers import guest_parts
from hyperbox.printing import complain, one_line

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb with its three actions."""
    parser = verbs.add_parser("guests", help="list, lock and update what guests are made of")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    one = mirror_action(
        actions, "list", "show the root and the layers with their locked packages", _list
    )
    one.add_argument("--refresh", action="store_true", help="ask the mirror what it has now")
    one.add_argument("--json", action="store_true", help="print JSON")
    mirror_action(actions, "lock", "lock the packages, unless all are locked already", _lock)
    mirror_action(actions, "update", "lock the newest version of every package", _update)


def _list(arguments: argparse.Namespace) -> int:
    parts, lock = guest_parts(), read_guest_lock()
    newest = resolve_guests(guest_archive(arguments.mirror), parts) if arguments.refresh else None
    moved = moved_packages(lock.versions(), newest.versions()) if lock and newest else ()
    found = {part: pinned(part, names) for part, names in parts.items()}
    if arguments.json:
        rows = [
            {
                "part": part,
                "asked": list(parts[part]),
                "locked": {p.name: p.version for p in locked.packages} if locked else None,
            }
            for part, locked in found.items()
        ]
        document = {"lists_known": newest is not None, "moved": list(moved), "parts": rows}
        print(json.dumps(document, indent=2))
        return ExitCode.PASS
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("part", "asked for", "locked packages"):
        table.add_column(title)
    for part, locked in found.items():
        table.add_row(part, str(len(parts[part])), str(len(locked.packages)) if locked else "-")
    console = TerminalConsole()
    console.print(table)
    for text in moved:
        console.print(f"the mirror has others: {text}", highlight=False, soft_wrap=True)
    if newest is None:
        console.print("--refresh asks the mirror what it has now", highlight=False)
    return ExitCode.PASS


def _lock(arguments: argparse.Namespace) -> int:
    parts = guest_parts()
    if all(pinned(part, names) for part, names in parts.items()):
        print(one_line(f"{guest_lock_path()}: all {len(parts)} parts are locked"))
        return ExitCode.PASS
    return _update(arguments)


def _update(arguments: argparse.Namespace) -> int:
    complain("hyperbox: asking the mirror what each part takes")
    old = read_guest_lock()
    new = resolve_guests(guest_archive(arguments.mirror), guest_parts())
    write_guest_lock(new)
    for text in moved_packages(old.versions() if old else {}, new.versions()):
        print(one_line(text))
    print(one_line(f"wrote {guest_lock_path()}"))
    return ExitCode.PASS
