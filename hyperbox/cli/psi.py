"""``hyperbox psi``: this machine's pressure, once or continuously."""

from __future__ import annotations

import argparse
import json

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hyperbox.errors import ConfigError, ExitCode
from hyperbox.memory.averages import Average
from hyperbox.memory.psi import HISTORY, INTERVAL_S, Sampler, watch

__all__ = ["add_parser"]

_RED, _YELLOW = 80.0, 40.0  # percent: where tuning acts, and where it begins to look


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "psi",
        help="watch this machine's pressure",
        description="Shows how much time tasks lose waiting for CPU, memory and storage: the "
        "kernel's averages and our own, from the same totals.",
    )
    parser.add_argument("--watch", action="store_true", help="go on until interrupted")
    parser.add_argument("--json", action="store_true", help="print one JSON object a sample")
    parser.add_argument(
        "--interval",
        type=_positive,
        default=INTERVAL_S,
        metavar="S",
        help=f"seconds between samples (default {INTERVAL_S:g})",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    console = Console()
    count = None if arguments.watch else 1
    with Sampler(history=HISTORY) as sampler:
        if arguments.json or not arguments.watch or not console.is_terminal:
            show = _print_json if arguments.json else lambda now: console.print(_table(now))
            watch(sampler, show, interval_s=arguments.interval, count=count)
        else:
            with Live(console=console, auto_refresh=False) as live:
                watch(
                    sampler,
                    lambda now: live.update(_page(now, arguments.interval), refresh=True),
                    interval_s=arguments.interval,
                )
    return ExitCode.PASS


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 86_400:
        raise ConfigError(f"--interval {text!r} is not a time", hint="give 0.01 to 86400 seconds")
    return value


def _print_json(sampler: Sampler) -> None:
    print(json.dumps(sampler.report()), flush=True)


def _page(sampler: Sampler, interval_s: float) -> Group:
    note = f"{len(sampler.history)} samples, one every {interval_s:g} s; Ctrl-C ends"
    return Group(_table(sampler), Text(note, style="dim"))


def _table(sampler: Sampler) -> Table:
    table = Table(title="pressure: % of time lost")
    table.add_column("resource")
    table.add_column("who waits")
    for name in ("last 10 s", "kernel 10 s", "60 s", "300 s", "stalled since boot"):
        table.add_column(name, justify="right")
    last = sampler.history[-1]
    for (resource, kind), line in last.lines().items():
        table.add_row(
            resource,
            kind,
            _own(sampler.boxcar(resource, kind)),
            *(_percent(value) for value in (line.avg10, line.avg60, line.avg300)),
            f"{line.total_us / 1e6:,.3f} s",
        )
    return table


def _own(average: Average | None) -> Text:
    if average is None:
        return Text("-", style="dim")
    text = _percent(average.percent)
    if average.error >= 0.05:
        text.append(f" ±{average.error:.1f}", style="dim")
    return text


def _percent(value: float) -> Text:
    style = "red" if value > _RED else "yellow" if value > _YELLOW else ""
    return Text(f"{value:.1f}", style=style)
