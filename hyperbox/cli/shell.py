"""``hyperbox shell``: a console in a guest."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from hyperbox.cli.guest_options import (
    Prepared,
    add_options,
    exit_status,
    lost,
    prepare,
    progress,
    standard_input,
    to_stderr,
    to_stdout,
)
from hyperbox.errors import ExitCode, HarnessError
from hyperbox.harness.lab.session import ConsoleLeft, Streams, converse, open_guest
from hyperbox.harness.lab.terminal import RawTerminal
from hyperbox.printing import complain

__all__ = ["add_parser"]

_EPILOG = """\
The guest starts fresh and is thrown away at the end; nothing of it stays. The project lies
in /opt/hyperbox. Exit status: the shell's; 3 if the machine died, with the place of its
console; 130 if left with Ctrl-] three times.

examples:
  hyperbox shell                            the newest kernel
  hyperbox shell --kernel 6.1 --memory 2048
  hyperbox shell --kernel 6.12 < script.sh  runs a script, without a terminal
"""
# Unknown terminals (the guest knows the common ones) get what nearly all understand.
_CONSOLE = "infocmp >/dev/null 2>&1 || export TERM=xterm; exec bash --norc --noprofile -i"


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "shell",
        help="open a console in a guest",
        description="Boots a kernel and opens a shell in it, with the project mounted.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, several=False)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    prepared = prepare(arguments)
    kit = prepared.kits[0]
    try:
        return exit_status(_console(prepared))
    except ConsoleLeft:
        print("\r", file=sys.stderr)
        complain(f"hyperbox: left the console of {kit.label}")
        return ExitCode.INTERRUPTED
    except HarnessError as error:
        raise lost(kit.label, error) from error


def _console(prepared: Prepared) -> int:
    kit, terminal = prepared.kits[0], os.isatty(0)
    with contextlib.ExitStack() as stack:
        with progress() as step:
            guest = open_guest(
                kit,
                prepared.lane,
                wanted=prepared.machine,
                layers=prepared.layers,
                progress=step,
            )
            machine = stack.enter_context(guest)
        if not terminal:
            streams = Streams(to_stdout, to_stderr, standard_input())
            return converse(machine, ["bash"], streams)
        complain(
            f"hyperbox: kernel {kit.release}; leave with exit or Ctrl-D, "
            "from a hanging guest with Ctrl-] three times"
        )
        raw = stack.enter_context(RawTerminal(0))
        environment = {
            "TERM": os.environ.get("TERM", "dumb"),
            "PS1": rf"\[\e[1m\]{kit.label}\[\e[0m\]:\w\$ ",
        }
        streams = Streams(to_stdout, to_stderr, standard_input(), raw)
        return converse(machine, ["sh", "-c", _CONSOLE], streams, environment=environment)
