"""``hyperbox trace``: the system calls of a command, a process, a cgroup or everything."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import IO, Any

from rich.live import Live
from rich.table import Table

from hyperbox.console import TerminalConsole
from hyperbox.errors import ConfigError, ExitCode, near
from hyperbox.files import atomic_writer, write_text
from hyperbox.linux.cgroup import cgroup_root
from hyperbox.observability.batches import cut
from hyperbox.observability.chrome_trace import events
from hyperbox.observability.command import exit_code, let_go, stopped_command
from hyperbox.observability.ebpf import Tracer, Window
from hyperbox.observability.export_target import target
from hyperbox.observability.exporter import exporter_to
from hyperbox.observability.governor import BUDGET
from hyperbox.observability.instrument import Filter, Scope
from hyperbox.observability.lives import container_of
from hyperbox.observability.otlp_file import read_spans
from hyperbox.observability.otlp_json import encode
from hyperbox.observability.spans import ResourceSpans
from hyperbox.observability.summary import Summary
from hyperbox.observability.trace_page import page
from hyperbox.observability.windows import SpanMaker, machine_attributes
from hyperbox.printing import complain, one_line

__all__ = ["add_parser"]

_WINDOW_S, _POLL_S = 1.0, 0.05
_EXPORT_S = 10.0  # for a collector to take the last spans
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_ROWS = 20
_FACTS: tuple[str, ...] = ("count", "unattributed", "skipped", "spans", "processes", "elapsed_ns")
_FACTS += ("lost", "modes", "cost")
_SHORTEST_ID = 6  # of a container's identifier
_WIDE = 72
Write = Callable[[list[ResourceSpans]], None]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "trace",
        help="trace system calls of a command, a process, a cgroup or the machine",
        description="Counts every system call, samples latency, and says what was slow or failed. "
        "With COMMAND its exit code is the command's (128+n for signal n). Needs root, or CAP_BPF "
        "and CAP_PERFMON.",
        epilog="examples: hyperbox trace -- make; hyperbox trace --all --duration 10; "
        "hyperbox trace view FILE makes a page of what --output wrote",
    )
    _add_view(parser)
    parser.add_argument("--pid", type=int, metavar="N", help="a process and what it has started")
    parser.add_argument("--cgroup", type=Path, metavar="PATH", help="a cgroup v2 directory")
    parser.add_argument("--container", metavar="NAME", help="a container, by its id or cgroup")
    parser.add_argument("--all", action="store_true", help="every process of this machine")
    parser.add_argument(
        "--budget",
        type=_percent,
        default=100 * BUDGET,
        metavar="PERCENT",
        help="what tracing may take of the CPU time before it looks at less "
        f"(default {100 * BUDGET:g})",
    )
    parser.add_argument(
        "--duty-cycle",
        action="store_true",
        help="keep to the budget at the price of missed calls: trace nothing for some seconds "
        "where counting alone exceeds it",
    )
    parser.add_argument("--duration", type=_seconds, metavar="S", help="end after S seconds")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write spans (default: OTLP JSON lines)"
    )
    parser.add_argument(
        "--otlp",
        metavar="ENDPOINT",
        help="send spans to this collector, for example http://localhost:4317; the protocol is "
        "gRPC unless OTEL_EXPORTER_OTLP_PROTOCOL says otherwise",
    )
    parser.add_argument(
        "--format",
        choices=("otlp", "chrome"),
        default="otlp",
        help="of --output: chrome is for Perfetto and about:tracing",
    )
    parser.add_argument(
        "--arguments", action="store_true", help="record command lines, which may hold secrets"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="and its arguments")
    parser.set_defaults(run=_run)


def _add_view(parser: argparse.ArgumentParser) -> None:
    """Let a first word ``view`` be a verb; after ``--`` it is a command."""
    view = type(parser)(
        prog=f"{parser.prog} view",
        description="Makes one HTML page, which needs nothing else, of the spans in FILE: a time "
        "line, what took the time, the slowest calls.",
    )
    view.add_argument("file", type=Path, metavar="FILE", help="what hyperbox trace --output wrote")
    view.add_argument("--html", type=Path, metavar="PAGE", help="default: FILE.html")
    view.set_defaults(run=_view)
    of_trace = parser.parse_known_args

    def parse(args: Any = None, namespace: Any = None) -> Any:
        if args and args[0] == "view":
            return view.parse_known_args(args[1:], namespace)
        return of_trace(args, namespace)

    parser.parse_known_args = parse  # type: ignore[method-assign] # what its parent calls


def _view(arguments: argparse.Namespace) -> int:
    made = arguments.html or arguments.file.with_name(arguments.file.name + ".html")
    write_text(made, page(read_spans(arguments.file), f"System calls: {arguments.file.name}"))
    print(one_line(f"page: {made}"))
    return ExitCode.PASS


def _run(arguments: argparse.Namespace) -> int:
    scope = _scope(arguments)
    summary = Summary()
    tracer = Tracer(
        scope,
        budget=arguments.budget / 100,
        duty_cycle=arguments.duty_cycle,
        arguments=arguments.arguments,
    )
    with contextlib.ExitStack() as stack:
        process = None
        if arguments.command:
            process = stack.enter_context(stopped_command(arguments.command))
        stack.enter_context(tracer)
        write = stack.enter_context(_writer(arguments.output, arguments.format))
        if arguments.otlp is not None:
            write = stack.enter_context(_exporting(arguments.otlp, write))
        if process is not None:
            tracer.instrument.await_execve(process.pid)
            stack.enter_context(_forwarding(process))
            let_go(process)
        elif arguments.pid is not None:
            tracer.add_tree(arguments.pid)
        over = _until(arguments, process, stack)
        _trace(tracer, summary, write, over, live=not arguments.command)
        status = ExitCode.PASS if process is None else exit_code(process)
    _print(summary, as_json=arguments.json)
    return status


def _scope(arguments: argparse.Namespace) -> Scope:
    """Return what is to be traced; exactly one must be given."""
    names = ("pid", "cgroup", "container")
    given = [f"--{name}" for name in names if getattr(arguments, name) is not None]
    given += ["--all"] if arguments.all else []
    given += ["COMMAND"] if arguments.command else []
    if len(given) != 1:
        wrong = " and ".join(given) + " exclude each other" if given else "nothing to trace"
        raise ConfigError(
            wrong, hint="one of -- COMMAND, --pid N, --cgroup PATH, --container NAME, --all"
        )
    if arguments.cgroup is not None:
        if not (arguments.cgroup / "cgroup.procs").exists():
            raise ConfigError(f"--cgroup: {arguments.cgroup} is not a cgroup v2 directory")
        return Scope(Filter.CGROUP, arguments.cgroup)
    if arguments.container is not None:
        return Scope(Filter.CGROUP, _container(arguments.container))
    return Scope(Filter.ALL if arguments.all else Filter.TREE)


def _container(name: str) -> Path:
    """Return the cgroup of a container: by its identifier's beginning, or as hyperbox names it."""
    known: dict[str, Path] = {}
    for directory, _, _ in os.walk(cgroup_root()):
        path = Path(directory)
        identifier = container_of(path.name)
        if name in (path.name, path.name.removeprefix("hyperbox-")):
            return path
        if identifier:
            known[identifier] = path
    found = [path for one, path in known.items() if one.startswith(name)]
    if len(found) == 1 and len(name) >= _SHORTEST_ID:
        return found[0]
    wrong = f"--container {name}: " + ("several containers" if found else "no such container")
    raise ConfigError(wrong, hint=near(name, [one[:12] for one in known]))


def _until(
    arguments: argparse.Namespace,
    process: subprocess.Popen[bytes] | None,
    stack: contextlib.ExitStack,
) -> Callable[[], bool]:
    """Return what says whether tracing is over."""
    deadline = ended = None
    if arguments.pid is not None:
        ended = _process_descriptor(arguments.pid)
        stack.callback(os.close, ended)
    if arguments.duration is not None:
        deadline = time.monotonic() + arguments.duration

    def over() -> bool:
        if deadline is not None and time.monotonic() >= deadline:
            return True
        if process is not None:
            return process.poll() is not None
        # A number may be used again, and what nobody has waited for is still in /proc.
        return ended is not None and bool(select.select([ended], [], [], 0)[0])

    return over


def _process_descriptor(process: int) -> int:
    """Return a descriptor that is readable once the process has ended (pidfd_open(2))."""
    try:
        return os.pidfd_open(process)
    except OSError as error:
        raise ConfigError(f"--pid {process}: {error.strerror}") from None


def _trace(
    tracer: Tracer, summary: Summary, write: Write, over: Callable[[], bool], *, live: bool
) -> None:
    """Trace until it is over or interrupted."""
    maker = SpanMaker(machine_attributes(os.environ))
    console = TerminalConsole(stderr=True)

    def take(window: Window) -> None:
        spans = maker.spans(window)
        summary.spans += sum(len(batch.spans) for batch in spans)
        summary.processes += sum(life.calls > 0 for life in window.ended)
        summary.add(window)
        write(spans)

    with contextlib.ExitStack() as stack:
        view = None
        if live and console.is_terminal and not console.is_dumb_terminal:
            view = stack.enter_context(Live(console=console, auto_refresh=False, transient=True))
        with contextlib.suppress(KeyboardInterrupt):
            ends = time.monotonic() + _WINDOW_S
            while not over():
                time.sleep(_POLL_S)
                tracer.poll()
                if time.monotonic() >= ends:
                    ends += _WINDOW_S
                    take(tracer.read())
                    if view is not None:
                        view.update(_table(summary, console.width), refresh=True)
    take(tracer.stop())
    running = [life for life in tracer.lives.running() if life.calls]
    summary.processes += len(running)
    write(maker.running(running, time.monotonic_ns()))


@contextlib.contextmanager
def _writer(path: Path | None, form: str) -> Iterator[Write]:
    """Return what writes spans to a file, which is there when all are written."""
    if path is None:
        yield lambda _spans: None
        return
    with atomic_writer(path) as stream:
        if form == "otlp":
            yield lambda spans: _write_lines(stream, spans)
            return
        stream.write(b'{"traceEvents":[')
        first = True

        def write(spans: list[ResourceSpans]) -> None:
            nonlocal first
            for event in events(spans):
                stream.write((b"" if first else b",") + b"\n" + json.dumps(event).encode())
                first = False

        yield write
        stream.write(b'\n],"displayTimeUnit":"ns"}\n')


@contextlib.contextmanager
def _exporting(endpoint: str, write: Write) -> Iterator[Write]:
    """Return what writes spans and sends them; the end waits for the collector, and reports."""
    exporter = exporter_to(target(os.environ, endpoint))
    exporter.start()
    oversized = 0

    def both(spans: list[ResourceSpans]) -> None:
        nonlocal oversized
        write(spans)
        batches, too_large = cut(spans)
        oversized += too_large
        exporter.add(batches)

    report = None
    try:
        yield both
        report = exporter.close(_EXPORT_S)
    finally:
        if report is None:
            exporter.close()
    lost = (
        report.rejected + report.refused + report.dropped_full + report.dropped_at_end + oversized
    )
    why = f": {report.trouble}" if lost and report.trouble else ""
    complain(one_line(f"{report.exported} spans exported, {lost} lost{why}"))


def _write_lines(stream: IO[bytes], spans: list[ResourceSpans]) -> None:
    if spans:
        stream.write(encode(spans) + b"\n")


@contextlib.contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass signals on to the command: tracing ends when it does."""

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        facts = {name: getattr(summary, name) for name in _FACTS}
        print(json.dumps({**facts, "rows": [asdict(row) for row in summary.rows()]}))
        return
    console = TerminalConsole(stderr=True)
    console.print(_table(summary, console.width))
    lost = ", ".join(f"{cause} {count}" for cause, count in sorted(summary.lost.items()))
    modes = ", ".join(f"{mode} {count}" for mode, count in summary.modes.items())
    complain(
        one_line(
            f"{summary.count} calls of {summary.processes} processes in "
            f"{summary.elapsed_ns / 1e9:.1f} s, {summary.spans} spans"
            + f"; tracing took {100 * summary.cost:.1f} % of the CPU time ({modes})"
            + (f"; not reported one by one: {lost}" if lost else "")
        )
    )


def _table(summary: Summary, columns: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("process", "call"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    wide = columns >= _WIDE
    for name in ("count", "errors", *(("p50", "p99") if wide else ()), "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in summary.rows()[:_ROWS]:
        mark = "" if row.abi == "x86_64" else f" ({row.abi})"
        latencies = (_duration(row.p50_ns), _duration(row.p99_ns)) if wide else ()
        counts = str(row.count), str(row.errors or "")
        table.add_row(row.process, row.call + mark, *counts, *latencies, f"{100 * row.share:.1f} %")
    return table


def _duration(value_ns: float) -> str:
    if not value_ns:
        return "-"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if value_ns >= size:
            return f"{value_ns / size:.3g} {unit}"
    return f"{value_ns:.0f} ns"


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 86_400 * 365:
        raise argparse.ArgumentTypeError("a number of seconds from 0.01 is expected")
    return value


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 100:
        raise argparse.ArgumentTypeError("a percentage from 0.01 to 100 is expected")
    return value
