"""Reads what `otlp_json` and a collector's file exporter write: TracesData, an object a line."""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from hyperbox.errors import ConfigError
from hyperbox.foreign import parse_json, read_text
from hyperbox.observability.spans import ResourceSpans, Span, SpanLink, SpanResource, Value

__all__ = ["read_spans"]

_MOST_BYTES = 256 << 20
_VALUES: Mapping[str, Callable[[Any], Value]] = {
    "stringValue": str,
    "boolValue": bool,
    "intValue": int,
    "doubleValue": float,
    "bytesValue": binascii.a2b_base64,
    "arrayValue": lambda value: cast(Value, [_value(one) for one in value.get("values", ())]),
}


def read_spans(path: Path) -> Iterator[ResourceSpans]:
    """Yield the spans of a file of OTLP JSON lines.

    Raises
    ------
    ConfigError
        If the file cannot be read, is larger than 256 MiB, or has a line that is not TracesData.
    """
    text = read_text(path, most=_MOST_BYTES, refusal=ConfigError)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield from _traces_data(parse_json(line))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ConfigError(
                f"{path}: line {number} is not OTLP JSON: {error}",
                hint="such files are written by hyperbox trace --output",
            ) from error


def _traces_data(data: Any) -> Iterator[ResourceSpans]:
    for batch in data["resourceSpans"]:
        resource = SpanResource(_attributes(batch.get("resource", {})))
        spans = [_span(one) for scope in batch.get("scopeSpans", ()) for one in scope["spans"]]
        yield ResourceSpans(resource, spans)


def _span(data: Any) -> Span:
    start_ns, end_ns = int(data["startTimeUnixNano"]), int(data["endTimeUnixNano"])
    if not 0 <= start_ns <= end_ns < 1 << 64:
        raise ValueError(f"a span from {start_ns} to {end_ns}")
    status = data.get("status", {})
    return Span(
        bytes.fromhex(data["traceId"]),
        bytes.fromhex(data["spanId"]),
        str(data["name"]),
        start_ns,
        end_ns,
        bytes.fromhex(data.get("parentSpanId", "")),
        _attributes(data),
        [
            SpanLink(bytes.fromhex(one["traceId"]), bytes.fromhex(one["spanId"]), _attributes(one))
            for one in data.get("links", ())
        ],
        str(status.get("message", "")) if status.get("code") == 2 else "",
    )


def _attributes(data: Any) -> dict[str, Value]:
    return {str(one["key"]): _value(one["value"]) for one in data.get("attributes", ())}


def _value(data: Any) -> Value:
    ((kind, value),) = data.items() or (("stringValue", ""),)
    found = _VALUES[kind](value)
    if isinstance(found, float) and not math.isfinite(found) and not isinstance(value, str):
        raise ValueError(f"{value} as a number")
    return found
