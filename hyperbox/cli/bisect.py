"""``hyperbox bisect``: find the packaged kernel with which something changed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from hyperbox.cli.guest_options import add_memory, pair
from hyperbox.console import TerminalConsole
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.harness.declarations import load_suites
from hyperbox.harness.lab.kernel_kit import packaged_kernels
from hyperbox.harness.lab.kernel_lock import read_lock
from hyperbox.harness.lab.kernel_matrix import compare_versions
from hyperbox.harness.lab.point_releases import find_release, span
from hyperbox.harness.runs.bisection import Answer, tries_left
from hyperbox.harness.runs.bisection_log import BisectionLog, Candidate, Question, Try, candidate
from hyperbox.harness.runs.bisector import bisect, judge_for
from hyperbox.harness.runs.documents import utc
from hyperbox.harness.runs.plan import select
from hyperbox.harness.runs.progress import ProgressDisplay
from hyperbox.printing import one_line

__all__ = ["add_parser", "answer_line"]

# What --resume takes from the log, and what it is when it is not given.
_QUESTION: dict[str, object] = {
    **dict.fromkeys(("gate", "good", "bad", "lane", "blocks", "memory", "timeout")),
    **dict.fromkeys(("mirror", "directory")),
    "command": [],
    "put": [],
    "seed": 1,
    "crash": "skip",
}

_EPILOG = """\
The row is every kernel that Debian's archive still has between the two ends, point releases
and rebuilds too, in the order of their versions. Fixes are backported, so versions are not
history: read the answer as "between these two packages". A series such as 6.16 means its
locked kernel. If --good is the newer one, the search is for the fix.

A gate decides with its experiment: PASS is good, FAIL is bad, anything else is skipped. A
command decides with its status in a fresh guest: 0 is good, 125 is undecided, all others are
bad. The ends are tried first; if one is not what it is said to be, there is nothing to bisect.

exit status: 0 one first bad kernel, 2 a range because kernels between were skipped, 3 nothing
to bisect or trouble (go on with --resume), 64 bad usage.

examples:
  hyperbox bisect --list --good 6.12.90 --bad 7.3
  hyperbox bisect --gate psi.swap_reduction --good 6.16 --bad 7.3
  hyperbox bisect --good 6.1 --bad 7.3 --put test.sh:/tmp/test.sh -- sh /tmp/test.sh
  hyperbox bisect --resume runs/bisect-20260101T000000Z
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "bisect",
        help="find the kernel with which a gate or a command changed",
        description="Searches all packaged kernels between a good and a bad one.",
        usage="hyperbox bisect --good KERNEL --bad KERNEL (--gate ID | [options] -- CMD [ARG ...])",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gate", metavar="ID", help="the gate that decides")
    parser.add_argument("--good", metavar="KERNEL", help="6.16, 6.12.90, a package version")
    parser.add_argument("--bad", metavar="KERNEL", help="the same")
    parser.add_argument(
        "--lane",
        choices=("exact", "fast", "kvm", "auto"),
        help="how time passes in the guests (default: exact for a gate, fast for a command)",
    )
    parser.add_argument("--blocks", type=int, metavar="N", help="blocks per try of a gate")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of a gate's blocks")
    parser.add_argument(
        "--put",
        action="append",
        default=[],
        metavar="FILE:PATH",
        help="copy FILE to PATH in the guest before the command; may be repeated",
    )
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="a command that takes longer is bad"
    )
    parser.add_argument(
        "--crash",
        choices=("skip", "bad"),
        default="skip",
        help="what a kernel is that crashes under the command (default: skip)",
    )
    add_memory(parser)
    parser.add_argument("--mirror", metavar="URL", help="Debian mirror for the list of kernels")
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="where to keep it (default: runs/bisect-TIME)"
    )
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with a bisection")
    parser.add_argument("--list", action="store_true", help="show the kernels and stop")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("command", nargs="*", metavar="CMD", help="the command that decides")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.list:
        return _list(arguments)
    log = _resumed(arguments) if arguments.resume else _started(arguments)
    with ProgressDisplay() as display:

        def report(one: Try) -> None:
            left = tries_left(len(log.row), log.marks())
            text = f"{log.row[one.place].version}: {one.mark} ({one.reason})"
            display.console.print(f"{text}; about {left} more" if left else text, soft_wrap=True)

        display.console.print(f"bisection: {log.directory}, {len(log.row)} kernels")
        found = bisect(log, judge_for(log.question, display), report)
    if arguments.json:
        print(json.dumps(_document(log, found), indent=2))
    else:
        _show_tries(log)
        print(one_line(answer_line(log, found)))
    return ExitCode.PASS if found.exact else ExitCode.INCONCLUSIVE


def answer_line(log: BisectionLog, found: Answer) -> str:
    """Return the answer in one line; in the words of a fix if the row goes back in time."""
    last = _named(log.row[found.last_good])
    backwards = compare_versions(log.row[0].version, log.row[-1].version) > 0
    bad, good = ("last bad", "first good") if backwards else ("first bad", "last good")
    if found.exact:
        return f"{bad}: {_named(log.row[found.first_bad[0]])}; {good}: {last}"
    near, far = log.row[found.first_bad[0]], log.row[found.first_bad[-1]]
    return (
        f"{bad}: one of {len(found.first_bad)} from {near.version} to {_named(far)}, all but "
        f"that skipped; {good}: {last}"
    )


def _started(arguments: argparse.Namespace) -> BisectionLog:
    if not arguments.good or not arguments.bad:
        raise ConfigError("--good and --bad are needed", hint="hyperbox bisect --help")
    if bool(arguments.gate) == bool(arguments.command):
        raise ConfigError(
            "either a --gate or a command decides", hint="write -- before the command"
        )
    if arguments.gate:
        _, gates = select(load_suites(None), [arguments.gate])
        if [gate.id for gate in gates] != [arguments.gate]:
            raise ConfigError(f"{arguments.gate} is a suite: one gate decides")
    if arguments.blocks is not None and arguments.blocks < 1:
        raise ConfigError(f"--blocks must be from 1 up, not {arguments.blocks}")
    if arguments.timeout is not None and not arguments.timeout > 0:
        raise ConfigError(f"--timeout must be more than 0, not {arguments.timeout:g}")
    question = Question(
        good=arguments.good,
        bad=arguments.bad,
        lane=arguments.lane or ("exact" if arguments.gate else "fast"),
        gate=arguments.gate,
        blocks=arguments.blocks,
        seed=arguments.seed,
        command=tuple(arguments.command),
        memory=arguments.memory,
        timeout=arguments.timeout,
        crash=arguments.crash,
        files=tuple(_file(text) for text in arguments.put),
    )
    row = _row(arguments)
    stamp = utc().replace(":", "").replace("-", "")
    directory = arguments.directory or Path("runs") / f"bisect-{stamp}"
    return BisectionLog.create(directory, question, row)


def _resumed(arguments: argparse.Namespace) -> BisectionLog:
    given = [name for name, unset in _QUESTION.items() if getattr(arguments, name) != unset]
    if given:
        raise ConfigError(
            f"a resumed bisection keeps its question: {given[0]} cannot be changed",
            hint="use --resume alone",
        )
    return BisectionLog.open(arguments.resume)


def _file(text: str) -> tuple[str, str]:
    here, there = pair(text, "--put", last=True)
    if not Path(here).is_file():
        raise ConfigError(f"--put: no file {here}")
    return str(Path(here).resolve()), there


def _row(arguments: argparse.Namespace) -> tuple[Candidate, ...]:
    with ProgressDisplay() as display:
        known = packaged_kernels(arguments.mirror, display.step)
    locked = read_lock()
    start = known[0] if arguments.good is None else find_release(arguments.good, known, locked)
    end = known[-1] if arguments.bad is None else find_release(arguments.bad, known, locked)
    if start == end:
        raise ConfigError(f"good and bad are the same kernel: {start.version}")
    return tuple(candidate(release) for release in span(known, start, end))


def _list(arguments: argparse.Namespace) -> int:
    row = _row(arguments)
    if arguments.json:
        print(json.dumps({"kernels": [asdict(one) for one in row]}, indent=2))
        return ExitCode.PASS
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("version", "release", "package", ""):
        table.add_column(title, no_wrap=True)
    for one in row:
        table.add_row(one.version, one.release, one.package, "" if one.vouched else "*")
    _wide().print(table)
    tries = tries_left(len(row), {})
    print(one_line(f"{len(row)} kernels, {tries} tries at most if none is skipped"))
    if not all(one.vouched for one in row):
        print("*: no signed list names its modules any more; their hash is taken when fetched")
    return ExitCode.PASS


def _show_tries(log: BisectionLog) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("try", "kernel", "mark", "seconds", "why"):
        table.add_column(title, no_wrap=title != "why", overflow="fold")
    for number, one in enumerate(log.tries, start=1):
        version = log.row[one.place].version
        table.add_row(str(number), version, one.mark, f"{one.seconds:.0f}", one.reason)
    _wide().print(table)


def _wide() -> TerminalConsole:
    """Return a console that cuts nothing where nobody looks."""
    return TerminalConsole(highlight=False, width=None if sys.stdout.isatty() else 160)


def _document(log: BisectionLog, found: Answer) -> dict[str, object]:
    bad: Sequence[Candidate] = [log.row[place] for place in found.first_bad]
    return {
        "directory": str(log.directory),
        "question": asdict(log.question),
        "kernels": len(log.row),
        "exact": found.exact,
        "answer": answer_line(log, found),
        "last_good": asdict(log.row[found.last_good]),
        "first_bad": [asdict(one) for one in bad],
        "tries": [{**asdict(one), "version": log.row[one.place].version} for one in log.tries],
    }


def _named(one: Candidate) -> str:
    return f"{one.version} ({one.package})"
