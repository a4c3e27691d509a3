"""Spans as trace events, which Perfetto and Chromium's about:tracing open.

Follows "Trace Event Format": complete events (``X``) with times in microseconds, counters (``C``)
and names (``M``). Lives are on a track of their own, calls on those of their threads; what a window
counted is a counter. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyperbox.observability import attributes as names
from hyperbox.observability.spans import ResourceSpans, Span

__all__ = ["events"]

_MOST_SERIES = 10
Event = dict[str, object]


def events(batches: Sequence[ResourceSpans]) -> Iterator[Event]:
    """Yield the events of spans."""
    for batch in batches:
        resource = batch.resource.attributes
        process = resource.get(names.PROCESS_PID, 0)
        name = {"name": resource.get("service.name", "")}
        yield {"ph": "M", "pid": process, "name": "process_name", "args": name}
        for span in batch.spans:
            yield _event(span, process)


def _event(span: Span, process: object) -> Event:
    kind = span.attributes.get(names.SPAN_KIND)
    event: Event = {"pid": process, "ts": span.start_unix_ns / 1000, "name": span.name}
    if kind in ("window", "unattributed"):
        return {**event, "ph": "C", "name": "system calls", "args": _series(span)}
    return {
        **event,
        "ph": "X",
        "tid": span.attributes.get(names.THREAD_ID, 0),
        "dur": (span.end_unix_ns - span.start_unix_ns) / 1000,
        "cat": str(kind),
        "args": {**span.attributes, **({"error": span.error} if span.error else {})},
    }


def _series(span: Span) -> dict[str, int]:
    """Return the most frequent calls of a window; a graph of all of them could not be read."""
    calls = span.attributes.get(names.WINDOW_SYSCALLS)
    counts = span.attributes.get(names.WINDOW_COUNTS)
    assert isinstance(calls, list)
    assert isinstance(counts, list)
    most = sorted(zip(calls, counts, strict=True), key=lambda pair: -pair[1])
    return dict(most[:_MOST_SERIES])
