"""``hyperbox psi``: pressure now or continuously, tuning, recording and replaying."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path

from rich.box import HEAVY_HEAD, SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hyperbox.cli.psi_decisions import add_decisions
from hyperbox.cli.psi_tune import add_tuning
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.linux.pressure import Resource, cgroup_files, system_files
from hyperbox.memory.averages import Average
from hyperbox.memory.psi import HISTORY, INTERVAL_S, Sampler, watch

__all__ = ["add_parser", "bars"]

_RED, _YELLOW = 80.0, 40.0  # percent: where tuning acts, and where it begins to look
_BARS = "▁▂▃▄▅▆▇█"
_WIDE = 80  # columns of the screen from which on the whole table fits
_OTHERS, _NARROW_OTHERS = 70, 33  # columns that the live tables take beside their bars


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "psi",
        help="watch this machine's pressure, tune its swapping",
        description="Shows how much time tasks lose waiting for CPU, memory and storage: the "
        "kernel's averages and our own, from the same totals.",
    )
    parser.add_argument("--watch", action="store_true", help="go on until interrupted")
    parser.add_argument("--json", action="store_true", help="print one JSON object a sample")
    parser.add_argument(
        "--interval",
        type=_positive,
        default=argparse.SUPPRESS,  # the verbs below have an option of this name too
        metavar="S",
        help=f"seconds between samples (default {INTERVAL_S:g})",
    )
    parser.add_argument(
        "--cgroup",
        default=argparse.SUPPRESS,
        metavar="PATH",
        help="a cgroup v2 directory instead of the machine",
    )
    parser.set_defaults(run=_run)
    below = parser.add_subparsers(dest="psi_verb", metavar="VERB")
    add_tuning(below)
    add_decisions(below)


def bars(shares: tuple[float, ...], width: int) -> str:
    """Draw percentages as one character each, the newest last; nothing at all is a dot."""
    drawn = (
        "·" if share <= 0 else _BARS[min(int(share / 100 * len(_BARS)), len(_BARS) - 1)]
        for share in shares[-width:]
    )
    return "".join(drawn).rjust(width)


def _run(arguments: argparse.Namespace) -> int:
    console = Console()
    interval_s = getattr(arguments, "interval", INTERVAL_S)
    group = getattr(arguments, "cgroup", None)
    where = group or "this machine"
    count = None if arguments.watch else 1
    # A signal is the usual end of watching, as of tuning and recording.
    ended = contextlib.suppress(KeyboardInterrupt) if arguments.watch else contextlib.nullcontext()
    # A terminal that cannot move its cursor would show nothing before the end.
    live_view = arguments.watch and console.is_terminal and not console.is_dumb_terminal
    with ended, _sampler(group) as sampler:
        if arguments.json or not live_view:
            show = (
                _print_json
                if arguments.json
                else lambda now: console.print(_table(now, where, console.width))
            )
            watch(sampler, show, interval_s=interval_s, count=count)
        else:
            with Live(console=console, auto_refresh=False) as live:
                watch(
                    sampler,
                    lambda now: live.update(
                        _page(now, interval_s, where, console.width), refresh=True
                    ),
                    interval_s=interval_s,
                )
    return ExitCode.PASS


def _sampler(group: str | None) -> Sampler:
    if group is None:
        return Sampler(system_files(), history=HISTORY)
    directory = Path(group)
    if not directory.is_dir():
        raise ConfigError(f"--cgroup: no directory {group}", hint="name a cgroup v2 directory")
    return Sampler(cgroup_files(directory), history=HISTORY)


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


def _page(sampler: Sampler, interval_s: float, where: str, columns: int) -> Group:
    note = f"{len(sampler.history)} samples, one every {interval_s:g} s; Ctrl-C ends"
    others = _OTHERS if columns >= _WIDE else _NARROW_OTHERS
    width = max(5, min(columns - others, HISTORY))
    return Group(_table(sampler, where, columns, bar_width=width), Text(note, style="dim"))


def _table(sampler: Sampler, where: str, columns: int, *, bar_width: int = 0) -> Table:
    """Give the last sample as a table; with `bar_width` the samples before it as bars too."""
    if columns < _WIDE:
        return _narrow_table(sampler, where, bar_width=bar_width)
    now = sampler.snapshot()
    last_title = "each sample" if bar_width else "since boot"
    table = Table(
        title=f"pressure of {where}: % of time lost",
        box=SIMPLE_HEAD if bar_width else HEAVY_HEAD,
    )
    table.add_column("resource")
    table.add_column("who waits")
    for name in ("last 10 s", "kernel 10 s", "60 s", "300 s"):
        table.add_column(name, justify="right")
    table.add_column(last_title, justify="left" if bar_width else "right", no_wrap=True)
    last = now.samples[-1]
    for (resource, kind), line in last.lines().items():
        total = f"{line.total_us / 1e6:,.3f} s"
        table.add_row(
            resource,
            kind,
            _own(now.boxcar(resource, kind)),
            *(_percent(value) for value in (line.avg10, line.avg60, line.avg300)),
            bars(now.shares(resource, kind), bar_width) if bar_width else total,
        )
    if Resource.IRQ not in last.pressure:
        table.caption = "irq pressure: not given by this kernel"
    return table


def _narrow_table(sampler: Sampler, where: str, *, bar_width: int) -> Table:
    """Give what matters most where a whole line does not fit."""
    now = sampler.snapshot()
    table = Table(title=f"% of time lost: {where}", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("who waits", no_wrap=True)
    for name in ("10 s", "60 s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("each sample" if bar_width else "300 s", no_wrap=True)
    for (resource, kind), line in now.samples[-1].lines().items():
        own = now.boxcar(resource, kind)
        table.add_row(
            f"{resource} {kind}",
            _percent(own.percent if own else line.avg10),
            _percent(line.avg60),
            bars(now.shares(resource, kind), bar_width) if bar_width else _percent(line.avg300),
        )
    if Resource.IRQ not in now.samples[-1].pressure:
        table.caption = "irq: not by this kernel"
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
