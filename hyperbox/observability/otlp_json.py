"""Spans in OTLP's JSON mapping: what OTLP/HTTP takes, and what a collector's file exporter writes.

Follows "JSON Protobuf Encoding" of the OTLP specification: names in lowerCamelCase, trace and span
ids in hex, enums as numbers, 64-bit integers as strings, other bytes in base64. Pure.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence

import hyperbox
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

__all__ = ["encode"]

_SURROGATES = re.compile("[\ud800-\udfff]")


def encode(batches: Sequence[ResourceSpans]) -> bytes:
    """Return a TracesData object (or ExportTraceServiceRequest, which is alike) in one line.

    It has no line end. Text that is not UTF-8, which Python has as surrogates, gets U+FFFD in
    their place; an integer beyond 64 bits becomes its digits.
    """
    data = {"resourceSpans": [_resource_spans(batch) for batch in batches]}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text).encode()


def _resource_spans(batch: ResourceSpans) -> dict[str, object]:
    scope = {"name": SCOPE_NAME, "version": hyperbox.__version__}
    return {
        "resource": {"attributes": _attributes(batch.resource.attributes)},
        "scopeSpans": [{"scope": scope, "spans": [_span(span) for span in batch.spans]}],
    }


def _span(span: Span) -> dict[str, object]:
    found: dict[str, object] = {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "name": span.name,
        "kind": KIND_INTERNAL,
        "startTimeUnixNano": str(span.start_unix_ns),
        "endTimeUnixNano": str(span.end_unix_ns),
    }
    if span.parent_span_id:
        found["parentSpanId"] = span.parent_span_id.hex()
    if span.attributes:
        found["attributes"] = _attributes(span.attributes)
    if span.links:
        found["links"] = [_link(link) for link in span.links]
    if span.error:
        found["status"] = {"message": span.error, "code": STATUS_ERROR}
    return found


def _link(link: SpanLink) -> dict[str, object]:
    found: dict[str, object] = {"traceId": link.trace_id.hex(), "spanId": link.span_id.hex()}
    if link.attributes:
        found["attributes"] = _attributes(link.attributes)
    return found


def _attributes(attributes: Attributes) -> list[dict[str, object]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Value) -> dict[str, object]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue" if fits_int64(value) else "stringValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value if math.isfinite(value) else _name(value)}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode()}
    return {"arrayValue": {"values": [_value(one) for one in value]}}


def _name(value: float) -> str:
    """Return how protobuf's JSON mapping writes a double that JSON has no number for."""
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
