"""Batches: spans of one resource, encoded once, with what a search needs to know of them.

A batch is what is stored, streamed and exported. Its bytes are a TracesData message of their own
and, joined to others', part of a larger one. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hyperbox.observability.attributes import (
    CONTAINER_ID,
    ERROR_TYPE,
    PROCESS_PID,
    SYSCALL_NAME,
    WINDOW_SYSCALLS,
)
from hyperbox.observability.otlp_protobuf import encode_resource, encode_span, joined
from hyperbox.observability.spans import Attributes, ResourceSpans, Span

__all__ = ["LARGEST_BATCH", "Batch", "Traits", "calls_of", "cut", "errors_of", "traits_of"]

LARGEST_BATCH = 256 << 10
"""Bytes: far below the 4 MiB that gRPC takes in a message, and little to lose at a time."""

_AROUND = 64  # bytes of scope, tags and lengths around the spans of a batch


@dataclass(frozen=True, slots=True)
class Traits:
    """What the spans of a batch have among them: whether a search may find something in it.

    Times are Unix nanoseconds, `longest_ns` is the longest duration.
    """

    trace_ids: frozenset[bytes]
    calls: frozenset[str]
    errors: frozenset[str]
    start_unix_ns: int
    end_unix_ns: int
    longest_ns: int
    pid: int | None = None
    container: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded spans of one resource: how many, and their traits."""

    data: bytes
    spans: int
    traits: Traits


def cut(batches: Iterable[ResourceSpans], most: int = LARGEST_BATCH) -> tuple[list[Batch], int]:
    """Encode spans in batches of at most `most` bytes.

    Also returns the number of spans that are left out because a single one is larger.
    """
    found: list[Batch] = []
    oversized = 0
    for batch in batches:
        resource = encode_resource(batch.resource.attributes)
        spare = most - len(resource) - _AROUND
        encoded: list[bytes] = []
        spans: list[Span] = []
        size = 0
        for span in batch.spans:
            data = encode_span(span)
            if len(data) > spare:
                oversized += 1
                continue
            if size + len(data) > spare:
                found.append(_batch(resource, encoded, spans, batch.resource.attributes))
                encoded, spans, size = [], [], 0
            encoded.append(data)
            spans.append(span)
            size += len(data)
        if spans:
            found.append(_batch(resource, encoded, spans, batch.resource.attributes))
    return found, oversized


def traits_of(resource: Attributes, spans: Sequence[Span]) -> Traits:
    """Return the traits of at least one span of a resource."""
    pid, container = resource.get(PROCESS_PID), resource.get(CONTAINER_ID)
    return Traits(
        trace_ids=frozenset(span.trace_id for span in spans),
        calls=frozenset(call for span in spans for call in calls_of(span)),
        errors=frozenset(error for span in spans for error in errors_of(span)),
        start_unix_ns=min(span.start_unix_ns for span in spans),
        end_unix_ns=max(span.end_unix_ns for span in spans),
        longest_ns=max(span.end_unix_ns - span.start_unix_ns for span in spans),
        pid=pid if isinstance(pid, int) else None,
        container=container if isinstance(container, str) else "",
    )


def calls_of(span: Span) -> tuple[str, ...]:
    """Return the system calls that a span is about: one, or those of a window."""
    return _texts(span, SYSCALL_NAME) + _texts(span, WINDOW_SYSCALLS)


def errors_of(span: Span) -> tuple[str, ...]:
    """Return the names of the errors in a span."""
    return _texts(span, ERROR_TYPE)


def _batch(
    resource: bytes, encoded: Sequence[bytes], spans: Sequence[Span], attributes: Attributes
) -> Batch:
    return Batch(joined(resource, encoded), len(spans), traits_of(attributes, spans))


def _texts(span: Span, key: str) -> tuple[str, ...]:
    value = span.attributes.get(key, ())
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(one for one in value if isinstance(one, str))
    return ()
