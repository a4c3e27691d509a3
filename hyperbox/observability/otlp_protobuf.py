"""Spans as OTLP's protobuf messages, and back, without a protobuf library.

Follows opentelemetry/proto/trace/v1/trace.proto, common.proto and resource.proto (1.x, stable).
TracesData and ExportTraceServiceRequest are the same on the wire: a repeated ResourceSpans as
field 1. So encodings may be joined, and a batch that was encoded once is stored, streamed and
exported as it is. Pure.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache

import hyperbox
from hyperbox.observability.protobuf_wire import delimited, varint
from hyperbox.observability.spans import (
    KIND_INTERNAL,
    SCOPE_NAME,
    STATUS_ERROR,
    Attributes,
    ResourceSpans,
    Span,
    SpanLink,
    Value,
    fits_int64,
)

__all__ = ["encode", "encode_resource", "encode_span", "joined"]

_SURROGATES = re.compile("[\ud800-\udfff]")
_SCOPE = delimited(
    1, delimited(1, SCOPE_NAME.encode()) + delimited(2, hyperbox.__version__.encode())
)
_KIND = b"\x30" + varint(KIND_INTERNAL)  # field 6
_STATUS = b"\x18" + varint(STATUS_ERROR)  # field 3 of Status
_TRUE, _FALSE = b"\x10\x01", b"\x10\x00"  # bool_value, field 2 of AnyValue


def encode(batches: Sequence[ResourceSpans]) -> bytes:
    """Return a TracesData message (or ExportTraceServiceRequest, which is alike).

    Text that is not UTF-8, which Python has as surrogates, gets U+FFFD in their place; an integer
    beyond 64 bits becomes its digits.
    """
    return b"".join(
        joined(encode_resource(batch.resource.attributes), map(encode_span, batch.spans))
        for batch in batches
    )


def encode_resource(attributes: Attributes) -> bytes:
    """Return field 1 of a ResourceSpans message: the resource with these attributes."""
    return delimited(1, _attributes(b"\x0a", attributes))


def joined(resource: bytes, spans: Iterable[bytes]) -> bytes:
    """Return field 1 of TracesData: an encoded resource with encoded spans, in our scope."""
    scope_spans = delimited(2, b"".join((_SCOPE, *spans)))
    return delimited(1, resource + scope_spans)


def encode_span(span: Span) -> bytes:
    """Return field 2 of a ScopeSpans message: the span."""
    parts = [_present(b"\x0a", span.trace_id), _present(b"\x12", span.span_id)]
    parts.append(_present(b"\x22", span.parent_span_id))
    parts.append(_present(b"\x2a", _utf8(span.name)))
    parts.append(_KIND)
    if span.start_unix_ns:
        parts.append(b"\x39" + span.start_unix_ns.to_bytes(8, "little"))
    if span.end_unix_ns:
        parts.append(b"\x41" + span.end_unix_ns.to_bytes(8, "little"))
    parts.append(_attributes(b"\x4a", span.attributes))
    parts += [delimited(13, _link(link)) for link in span.links]
    if span.error:
        parts.append(delimited(15, _present(b"\x12", _utf8(span.error)) + _STATUS))
    return delimited(2, b"".join(parts))


def _present(tag: bytes, content: bytes) -> bytes:
    """Return a field unless it is empty: proto3 leaves such fields out."""
    return tag + varint(len(content)) + content if content else b""


def _link(link: SpanLink) -> bytes:
    ids = _present(b"\x0a", link.trace_id) + _present(b"\x12", link.span_id)
    return ids + _attributes(b"\x22", link.attributes)


def _attributes(tag: bytes, attributes: Attributes) -> bytes:
    parts = []
    for key, value in attributes.items():
        any_value = _value(value)
        pair = _key(key) + varint(len(any_value)) + any_value
        parts.append(tag + varint(len(pair)) + pair)
    return b"".join(parts)


@lru_cache(maxsize=256)
def _key(key: str) -> bytes:
    """Return a KeyValue's key, and the tag of its value."""
    return _present(b"\x0a", _utf8(key)) + b"\x12"


def _value(value: Value) -> bytes:
    """Return an AnyValue; its oneof is written even where it has the default."""
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int):
        return b"\x18" + varint(value) if fits_int64(value) else _value(str(value))
    if isinstance(value, str):
        return delimited(1, _utf8(value))
    if isinstance(value, float):
        return b"\x21" + struct.pack("<d", value)
    if isinstance(value, bytes):
        return delimited(7, value)
    return delimited(5, b"".join(delimited(1, _value(one)) for one in value))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode()
