"""A trace as one HTML page that needs nothing else: a time line, what took the time, what was slow.

Pure. Numbers come from the windows' exact counts; the time of a call is the mean of those that were
timed, times all of them.
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from hyperbox.observability import attributes as names
from hyperbox.observability.spans import Attributes, ResourceSpans, Span

__all__ = ["page"]

_WIDTH, _LABEL, _ROW = 1120, 190, 22  # pixels
_MOST_PROCESSES, _MOST_MARKS, _SLOWEST, _CALLS = 200, 500, 50, 12
_MOST_BREAKDOWNS = 50
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--busy:#4c78a8;--slow:#e8890c;--bad:#d62728}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{padding:.2rem .6rem;border-bottom:1px solid var(--line)}
th{text-align:left}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:currentColor}
.bar{display:inline-block;height:.8em;background:var(--busy);vertical-align:baseline}
details{margin:.3rem 0}summary{cursor:pointer}.note{opacity:.75}
"""


@dataclass
class _Call:
    """A system call of one process, over all windows."""

    count: int = 0
    errors: int = 0
    timed: int = 0
    sum_ns: int = 0
    max_ns: int = 0

    @property
    def time_ns(self) -> float:
        return self.sum_ns / self.timed * self.count if self.timed else 0.0


@dataclass
class _Process:
    """A life, with what was seen of it."""

    name: str
    pid: object
    start_ns: int
    end_ns: int
    windows: list[tuple[int, int, int]] = field(default_factory=list)
    calls: dict[str, _Call] = field(default_factory=lambda: defaultdict(_Call))
    single: list[Span] = field(default_factory=list)
    error: str = ""

    @property
    def time_ns(self) -> float:
        return sum(call.time_ns for call in self.calls.values())

    @property
    def count(self) -> int:
        return sum(call.count for call in self.calls.values())


def page(spans: Iterable[ResourceSpans], title: str) -> str:
    """Return the page of a trace that `hyperbox trace --output` wrote."""
    processes, lost = _read(spans)
    shown = sorted(processes, key=lambda one: (one.start_ns, str(one.pid)))
    body = "".join(
        [
            f"<h1>{html.escape(title)}</h1>",
            _sentence(processes, lost),
            "<h2>Time line</h2>",
            _time_line(shown[:_MOST_PROCESSES]),
            _left_out(len(shown), _MOST_PROCESSES, "processes"),
            "<h2>Where the time went</h2>",
            *(
                _breakdown(one)
                for one in sorted(processes, key=lambda one: -one.time_ns)[:_MOST_BREAKDOWNS]
            ),
            f"<h2>The slowest calls that were reported, at most {_SLOWEST}</h2>",
            _slowest(processes),
        ]
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><body>{body}</body></html>\n"
    )


def _read(spans: Iterable[ResourceSpans]) -> tuple[list[_Process], dict[str, int]]:
    processes: dict[bytes, _Process] = {}
    lost: dict[str, int] = defaultdict(int)
    for batch in spans:
        for span in batch.spans:
            if span.attributes.get(names.SPAN_KIND) == "unattributed":
                for cause, count in _losses(span.attributes):
                    lost[cause] += count
            else:
                _add(processes, batch.resource.attributes, span)
    return list(processes.values()), lost


def _losses(attributes: Attributes) -> Iterator[tuple[str, int]]:
    for key, value in attributes.items():
        if key.startswith(f"{names.LOST}.") and isinstance(value, int):
            yield key.removeprefix(f"{names.LOST}."), value


def _add(processes: dict[bytes, _Process], resource: Attributes, span: Span) -> None:
    """Add a span to its process; a process is a trace."""
    name, pid = resource.get("process.executable.name", "?"), resource.get(names.PROCESS_PID, "?")
    found = processes.setdefault(
        span.trace_id, _Process(str(name), pid, span.start_unix_ns, span.end_unix_ns)
    )
    found.start_ns = min(found.start_ns, span.start_unix_ns)
    found.end_ns = max(found.end_ns, span.end_unix_ns)
    kind = span.attributes.get(names.SPAN_KIND)
    if kind == "window":
        found.windows.append((span.start_unix_ns, span.end_unix_ns, _add_window(found, span)))
    elif kind == "call":
        found.single.append(span)
    else:
        found.name, found.error = span.name, span.error


def _add_window(process: _Process, span: Span) -> int:
    """Add what a window counted; return how many calls."""
    columns = [
        _numbers(span.attributes, name)
        for name in (
            names.WINDOW_COUNTS,
            names.WINDOW_ERRORS,
            names.WINDOW_TIMED,
            names.WINDOW_SUM,
            names.WINDOW_MAX,
        )
    ]
    calls = span.attributes.get(names.WINDOW_SYSCALLS, ())
    assert not isinstance(calls, int | float)
    for name, count, errors, timed, sum_ns, max_ns in zip(calls, *columns, strict=False):
        call = process.calls[str(name)]
        call.count += count
        call.errors += errors
        call.timed += timed
        call.sum_ns += sum_ns
        call.max_ns = max(call.max_ns, max_ns)
    return sum(columns[0])


def _numbers(attributes: Attributes, name: str) -> list[int]:
    values = attributes.get(name, ())
    return [int(one) for one in values] if isinstance(values, Sequence) else []


def _sentence(processes: Sequence[_Process], lost: dict[str, int]) -> str:
    calls = sum(one.count for one in processes)
    losses = ", ".join(f"{cause} {count}" for cause, count in sorted(lost.items()))
    said = f"{calls:,} system calls of {len(processes):,} processes"
    return f"<p>{said}." + (
        f" Not reported one by one: {html.escape(losses)}.</p>" if losses else "</p>"
    )


def _left_out(count: int, most: int, what: str) -> str:
    return f'<p class="note">{count - most:,} more {what} are left out.</p>' if count > most else ""


def _time_line(processes: Sequence[_Process]) -> str:
    """Return an SVG: a row a process, darker where it called more, marks for single calls."""
    if not processes:
        return '<p class="note">Nothing was traced.</p>'
    begin = min(one.start_ns for one in processes)
    whole = max(max(one.end_ns for one in processes) - begin, 1)
    scale = (_WIDTH - _LABEL) / whole
    rates = [count / max(end - start, 1) for one in processes for start, end, count in one.windows]
    highest = max(rates, default=0) or 1
    height = _ROW * (len(processes) + 1)
    drawn = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="time line">']
    for tick in range(5):
        x = _LABEL + (_WIDTH - _LABEL) * tick / 5
        drawn.append(f'<text x="{x:.0f}" y="14">{_time(whole * tick / 5)}</text>')
        drawn.append(f'<path d="M{x:.0f} 18V{height}" stroke="var(--line)"/>')
    for row, one in enumerate(processes, 1):
        drawn += _row(one, row * _ROW, begin, scale, highest)
    return "".join([*drawn, "</svg>"])


def _row(one: _Process, y: int, begin: int, scale: float, highest: float) -> Iterator[str]:
    def box(start: int, end: int, top: float, tall: float) -> str:
        x, wide = _LABEL + (start - begin) * scale, max((end - start) * scale, 1)
        return f'<rect x="{x:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{tall:.1f}"'

    label = html.escape(f"{one.name[:18]} {one.pid}")
    yield f'<text x="0" y="{y + 15}">{label}</text>'
    yield box(one.start_ns, one.end_ns, y + 3, 16) + ' fill="var(--busy)" opacity=".2"/>'
    for start, end, count in one.windows:
        share = 0.15 + 0.6 * count / max(end - start, 1) / highest
        title = f"<title>{count:,} calls in {_time(end - start)}</title>"
        yield (
            box(start, end, y + 5, 12) + f' fill="var(--busy)" opacity="{share:.2f}">{title}</rect>'
        )
    for span in islice(one.single, _MOST_MARKS):
        colour = "var(--bad)" if span.error else "var(--slow)"
        title = html.escape(_described(span))
        yield (
            box(span.start_unix_ns, span.end_unix_ns, y + 4, 14)
            + f' fill="{colour}"><title>{title}</title></rect>'
        )


def _described(span: Span) -> str:
    took = _time(span.end_unix_ns - span.start_unix_ns)
    return f"{span.name}: {took}" + (f", {span.error}" if span.error else "")


def _breakdown(one: _Process) -> str:
    """Return what took the time of a process, the most first."""
    rows = sorted(one.calls.items(), key=lambda item: (-item[1].time_ns, -item[1].count, item[0]))
    whole = one.time_ns or 1.0
    lines = [
        f'<tr><td>{html.escape(name)}</td><td class="n">{call.count:,}</td>'
        f'<td class="n">{call.errors or ""}</td><td class="n">{_time(call.time_ns)}</td>'
        f'<td><span class="bar" style="width:{100 * call.time_ns / whole:.1f}%"></span></td></tr>'
        for name, call in rows[:_CALLS]
    ]
    ended = f" · {html.escape(one.error)}" if one.error else ""
    return (
        f"<details{' open' if rows and one.time_ns else ''}><summary>"
        f"{html.escape(one.name)} {html.escape(str(one.pid))}: {one.count:,} calls, "
        f"{_time(one.time_ns)}{ended}</summary><table><tr><th>call</th>"
        '<th class="n">count</th><th class="n">errors</th><th class="n">time</th>'
        f'<th style="width:40%">share</th></tr>{"".join(lines)}</table>'
        f"{_left_out(len(rows), _CALLS, 'calls')}</details>"
    )


def _slowest(processes: Sequence[_Process]) -> str:
    found = sorted(
        ((span, one) for one in processes for span in one.single),
        key=lambda pair: (pair[0].start_unix_ns - pair[0].end_unix_ns, pair[0].span_id),
    )[:_SLOWEST]
    lines = [
        f'<tr><td class="n">{_time(span.end_unix_ns - span.start_unix_ns)}</td>'
        f"<td>{html.escape(span.name)}</td><td>{html.escape(span.error)}</td>"
        f"<td>{html.escape(one.name)} {html.escape(str(one.pid))}</td>"
        f'<td class="n">{html.escape(str(span.attributes.get(names.THREAD_ID, "")))}</td></tr>'
        for span, one in found
    ]
    return (
        '<table><tr><th class="n">time</th><th>call</th><th>error</th><th>process</th>'
        f'<th class="n">thread</th></tr>{"".join(lines)}</table>'
    )


def _time(value_ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if value_ns >= size:
            return f"{value_ns / size:.3g} {unit}"
    return f"{value_ns:.0f} ns"
