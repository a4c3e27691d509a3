"""Spans as OpenTelemetry defines them: what the tracer makes, and what is stored and exported.

Follows opentelemetry/proto/trace/v1/trace.proto and the trace data model of the OpenTelemetry
specification. Nothing here encodes or sends anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "KIND_INTERNAL",
    "SCOPE_NAME",
    "STATUS_ERROR",
    "Attributes",
    "ResourceSpans",
    "Span",
    "SpanLink",
    "SpanResource",
    "Value",
    "fits_int64",
]

SCOPE_NAME = "hyperbox.observability"
"""Name of the instrumentation scope of every span."""

KIND_INTERNAL = 1
"""SPAN_KIND_INTERNAL: a system call is not a request to another process that is traced too."""

STATUS_ERROR = 2
"""STATUS_CODE_ERROR."""

Value = (
    bool
    | int
    | float
    | str
    | bytes
    | Sequence[bool]
    | Sequence[int]
    | Sequence[float]
    | Sequence[str]
)
"""A value of an attribute (AnyValue of common.proto, without maps)."""

Attributes = Mapping[str, Value]


@dataclass(frozen=True)
class SpanResource:
    """What made spans: a process of a machine or of a container."""

    attributes: Attributes


@dataclass(frozen=True)
class SpanLink:
    """A reference to a span of another trace, for example that of the parent process."""

    trace_id: bytes
    span_id: bytes
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """A piece of a process' life: all of it, a window of it, or one system call.

    `trace_id` has 16 bytes, `span_id` 8, `parent_span_id` 8 or none. Times are Unix
    nanoseconds, and the end is never before the start. `error` is the message of status
    ERROR; without one the status is unset.
    """

    trace_id: bytes
    span_id: bytes
    name: str
    start_unix_ns: int
    end_unix_ns: int
    parent_span_id: bytes = b""
    attributes: Attributes = field(default_factory=dict)
    links: Sequence[SpanLink] = ()
    error: str = ""


@dataclass(frozen=True)
class ResourceSpans:
    """Spans of one resource: what is stored, streamed and exported at a time."""

    resource: SpanResource
    spans: Sequence[Span]


def fits_int64(value: int) -> bool:
    """Return whether a value fits AnyValue.int_value; an address of the kernel does not."""
    return -(1 << 63) <= value < 1 << 63
