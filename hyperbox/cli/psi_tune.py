"""``hyperbox psi tune``, ``record`` and ``simulate``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.text import Text

from hyperbox.console import TerminalConsole
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.memory.decisions import Action, Decision
from hyperbox.memory.observer import Observer
from hyperbox.memory.traces import as_line, parse_trace, replay
from hyperbox.memory.tuner import StepView
from hyperbox.memory.tuning import RELIEFS, STEPS, Tuning
from hyperbox.memory.tuning_options import add_options, options_from
from hyperbox.printing import one_line

__all__ = ["STYLES", "add_tuning"]

STYLES = {
    Action.APPLY: "yellow",
    Action.PREPARE: "cyan",
    Action.KEEP: "green",
    Action.REVERT: "red",
    Action.RESTORE: "cyan",
    Action.REFUSED: "red",
}
"""How an action of the tuner is shown."""


def add_tuning(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the three verbs below ``psi``."""
    tune = verbs.add_parser(
        "tune",
        help="tune swapping when memory is short; put everything back at the end",
        description="Prepares compressed swap; gives up page cache of cgroups named as streaming "
        "while pressure is above 40 %; tries one step at a time while it is above 80 %, keeps "
        "what pays and gives it back on calm. Ctrl-C or SIGTERM puts everything back; after a "
        "crash `hyperbox doctor --repair` does.",
    )
    add_options(tune)
    _output(tune)
    tune.add_argument("--count", type=_count, metavar="N", help="end after N readings")
    tune.set_defaults(run=_tune)
    record = verbs.add_parser(
        "record", help="print the tuner's readings as a trace", description="Changes nothing."
    )
    add_options(record, rules=False, acting=False)
    record.add_argument("--count", type=_count, metavar="N", help="end after N readings")
    record.set_defaults(run=_record)
    simulate = verbs.add_parser(
        "simulate",
        help="show what the policy would have decided on a trace",
        description="Replays a trace of `psi record` as if every step could be made.",
    )
    simulate.add_argument("trace", metavar="TRACE", help="file of JSON lines; - reads the input")
    add_options(simulate, observing=False, acting=False)
    _output(simulate)
    simulate.set_defaults(run=_simulate)


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print every decision as a JSON line")
    parser.add_argument("--all", action="store_true", help="print uneventful readings too")


def _tune(arguments: argparse.Namespace) -> int:
    console = TerminalConsole()
    shown = _Printer(console, as_json=arguments.json, everything=arguments.all)
    with Tuning(options_from(arguments)) as tuning:
        if not arguments.json:
            _introduce(console, tuning)
        try:
            with contextlib.suppress(KeyboardInterrupt):  # the usual end, of a service too
                tuning.run(shown, count=arguments.count)
        finally:
            for decision in tuning.close():
                shown(decision)
        tuning.check_put_back()
    return ExitCode.PASS


def _record(arguments: argparse.Namespace) -> int:
    options = options_from(arguments)
    observer = Observer(options.group, options.streaming)
    start, taken = time.monotonic(), 0
    try:
        while arguments.count is None or taken < arguments.count:
            print(as_line(observer.reading()), flush=True)
            taken += 1
            if taken != arguments.count:
                interval_s = options.rules.interval_s
                time.sleep(interval_s - (time.monotonic() - start) % interval_s)
    except KeyboardInterrupt:
        pass  # the usual end
    finally:
        observer.close()
    return ExitCode.PASS


def _simulate(arguments: argparse.Namespace) -> int:
    rules = options_from(arguments).rules
    shown = _Printer(TerminalConsole(), as_json=arguments.json, everything=arguments.all)
    name = "standard input" if arguments.trace == "-" else arguments.trace
    readings = parse_trace(_lines(arguments.trace), name)
    decisions = []
    for decision in replay(readings, rules, STEPS, reliefs=RELIEFS):
        shown(decision)
        decisions.append(decision)
    if not decisions:
        raise ConfigError(f"{name} holds no reading", hint="hyperbox psi record makes traces")
    if not arguments.json:
        print(one_line(_summary(decisions)))
    return ExitCode.PASS


def _summary(decisions: Sequence[Decision]) -> str:
    """Say in a line how a replay went, for who has seen nothing happen."""
    seconds = (decisions[-1].time_ns - decisions[0].time_ns) / 1e9
    highest = max(decision.score for decision in decisions)
    made = sum(decision.action is Action.APPLY for decision in decisions)
    kept = sum(decision.action is Action.KEEP for decision in decisions)
    return (
        f"{len(decisions)} readings over {seconds:g} s: highest score {highest:.1f}, "
        f"{made} steps tried, {kept} kept"
    )


_LONGEST_LINE = 1 << 20  # characters; a reading of ten thousand cgroups is shorter


def _lines(name: str) -> Iterator[str]:
    if name == "-":
        yield from sys.stdin
        return
    try:
        with Path(name).open(errors="replace") as stream:
            while line := stream.readline(_LONGEST_LINE):
                if len(line) == _LONGEST_LINE:
                    raise ConfigError(f"{name}: a line is longer than a reading can be")
                yield line
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}") from error


class _Printer:
    """Prints decisions: eventful ones as a line of text, or all of them as JSON."""

    def __init__(self, console: TerminalConsole, *, as_json: bool, everything: bool) -> None:
        self._console = console
        self._json = as_json
        self._everything = everything
        self._state = ""
        self._began_ns: int | None = None

    def __call__(self, decision: Decision) -> None:
        if self._json:
            print(json.dumps(decision.as_json()), flush=True)
            return
        began_ns = self._began_ns = decision.time_ns if self._began_ns is None else self._began_ns
        moved = str(decision.state) != self._state
        self._state = str(decision.state)
        if not (self._everything or moved or decision.noteworthy):
            return
        what = f"{decision.action} {decision.step}" if decision.step else ""
        line = Text(f"{(decision.time_ns - began_ns) / 1e9:8.1f} s  {decision.state:<7} ")
        line.append(f"{what:<24} ", style=STYLES.get(decision.action, ""))
        line.append(one_line("; ".join((decision.reason, *decision.changes))))
        self._console.print(line, soft_wrap=True)


def _introduce(console: TerminalConsole, tuning: Tuning) -> None:
    status = tuning.status()
    if status.dry_run:
        console.print("dry run: nothing is changed", style="yellow")
        if os.geteuid() != 0:
            console.print("to tune for real needs root", style="yellow")
    for step in status.steps:
        console.print("  ", _introduced(step), sep="", soft_wrap=True)


def _introduced(step: StepView) -> Text:
    if step.unavailable:
        return Text(one_line(f"not {step.name}: {step.unavailable}"), style="dim")
    return Text(one_line(f"{step.name}: {step.title}"))


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"--count {text!r} is not a number of readings", hint="give 1 or more")
    return int(text)
