"""``hyperbox psi``: pressure now or continuously, tuning, recording and replaying."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.box import HEAVY_HEAD, SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hyperbox.cli.psi_decisions import add_decisions
from hyperbox.cli.psi_tune import add_tuning
from hyperbox.console import TerminalConsole
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.linux.pressure import Resource, cgroup_files, system_files
from hyperbox.memory.averages import Average
from hyperbox.memory.psi import HISTORY, INTERVAL_S, Sampler, watch
from hyperbox.printing import one_line

__all__ = ["add_parser", "bars"]

_RED, _YELLOW = 80.0, 40.0  # percent: where tuning acts, and where it begins to look
_BARS = "▁▂▃▄▅▆▇█"
_WIDE, _NARROW = 80, 33  # columns from which on the whole table fits, and one with a minute
_OTHERS, _NARROW_OTHERS, _LEAST = 63, 25, 18  # columns that live tables take beside their bars
_AROUND = 8  # lines of the live view above and below its rows


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
    console = TerminalConsole()
    interval_s = getattr(arguments, "interval", INTERVAL_S)
    group = getattr(arguments, "cgroup", None)
    where = one_line(group or "this machine")
    count = None if arguments.watch else 1
    # A signal is the usual end of watching, as of tuning and recording.
    ended = contextlib.suppress(KeyboardInterrupt) if arguments.watch else contextlib.nullcontext()
    # A terminal that cannot move its cursor would show nothing before the end.
    live_view = arguments.watch and console.is_terminal and not console.is_dumb_terminal
    with _sampler(group) as sampler, ended:
        if live_view and not arguments.json:
            _watch_live(sampler, console, where, interval_s)
        else:
            show = (
                _print_json
                if arguments.json
                else lambda now: console.print(_table(now, where, console.width))
            )
            watch(sampler, show, interval_s=interval_s, count=count)
    return ExitCode.PASS


def _watch_live(sampler: Sampler, console: TerminalConsole, where: str, interval_s: float) -> None:
    """Show each sample in place, on a screen of its own, until interrupted; the last one stays."""
    drawing = stale = False

    def draw(*_: object) -> None:
        nonlocal drawing, stale
        stale = True  # a signal may come while a frame is written: another one is, then
        while stale and not drawing and sampler.history:
            drawing, stale = True, False
            live.update(_page(sampler, interval_s, where, console), refresh=True)
            drawing = False

    try:
        with Live(console=console, auto_refresh=False, screen=True) as live, _on_resize(draw):
            watch(sampler, draw, interval_s=interval_s)
    finally:
        if sampler.history:
            console.print(_table(sampler, where, console.width))


@contextlib.contextmanager
def _on_resize(draw: Callable[..., None]) -> Iterator[None]:
    """Draw anew when the window's size changes, which may be long before the next sample."""
    before = signal.signal(signal.SIGWINCH, draw)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


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


def _page(
    sampler: Sampler, interval_s: float, where: str, console: TerminalConsole
) -> RenderableType:
    """Return the live view, as much of it as the window holds: the rows before all else."""
    columns = console.width
    others = _OTHERS if columns >= _WIDE else _NARROW_OTHERS if columns >= _NARROW else _LEAST
    width = max(5, min(columns - others, HISTORY))
    table = _table(sampler, where, columns, bar_width=width)
    if console.height < table.row_count + _AROUND:
        table.title = table.caption = None
        return table
    note = f"{len(sampler.history)} samples, one every {interval_s:g} s; Ctrl-C ends"
    return Group(table, Text(note, style="dim", no_wrap=True))


def _table(sampler: Sampler, where: str, columns: int, *, bar_width: int = 0) -> Table:
    """Return the last sample as a table; with `bar_width` the samples before it as bars too."""
    if columns < _WIDE:
        return _narrow_table(sampler, where, columns, bar_width=bar_width)
    now = sampler.snapshot()
    title = f"pressure of {where}: % of time lost"
    if len(title) > columns:
        title = f"pressure of {_short(where)}: % of time lost"
    table = Table(title=title, box=SIMPLE_HEAD if bar_width else HEAVY_HEAD)
    table.add_column("who waits", no_wrap=True)
    for name in ("last 10 s", "kernel 10 s", "60 s", "300 s"):
        table.add_column(name, justify="right", no_wrap=True)
    last_title = "each sample" if bar_width else "since boot"
    table.add_column(last_title, justify="left" if bar_width else "right", no_wrap=True)
    last = now.samples[-1]
    for (resource, kind), line in last.lines().items():
        total = f"{line.total_us / 1e6:,.3f} s"
        table.add_row(
            f"{resource} {kind}",
            _own(now.boxcar(resource, kind)),
            *(_percent(value) for value in (line.avg10, line.avg60, line.avg300)),
            bars(now.shares(resource, kind), bar_width) if bar_width else total,
        )
    if Resource.IRQ not in last.pressure:
        table.caption = "irq pressure: not given by this kernel"
    return table


def _narrow_table(sampler: Sampler, where: str, columns: int, *, bar_width: int) -> Table:
    """Return what matters most where a whole line does not fit."""
    now = sampler.snapshot()
    table = Table(
        title=f"% of time lost: {_short(where)}", box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("who waits", no_wrap=True)
    for name in ("10 s", "60 s") if columns >= _NARROW else ("10 s",):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("samples" if bar_width else "300 s", justify="right", no_wrap=True)
    for (resource, kind), line in now.samples[-1].lines().items():
        own = now.boxcar(resource, kind)
        recent = _percent(own.percent if own else line.avg10)
        minute = (_percent(line.avg60),) if columns >= _NARROW else ()
        drawn = bars(now.shares(resource, kind), bar_width) if bar_width else _percent(line.avg300)
        table.add_row(f"{resource} {kind}", recent, *minute, drawn)
    if Resource.IRQ not in now.samples[-1].pressure:
        table.caption = "irq: not by this kernel"
    return table


def _short(where: str) -> str:
    """Return the end of a long path."""
    return where if len(where) < 20 else f"…/{Path(where).name}"


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
