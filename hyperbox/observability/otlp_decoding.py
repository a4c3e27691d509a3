"""Spans out of OTLP's protobuf messages: what the store, searches and JSON answers read.

The other half of `hyperbox.observability.otlp_protobuf`. Fields that spans here do not have are
passed over, as proto3 wants it. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hyperbox.observability.protobuf_wire import MalformedMessage, fields, signed, text
from hyperbox.observability.spans import ResourceSpans, Span, SpanLink, SpanResource, Value

__all__ = ["decode"]


def decode(message: bytes) -> list[ResourceSpans]:
    """Return what a TracesData message has; scopes of one resource are joined.

    Raises
    ------
    MalformedMessage
        If it is none.
    """
    return [_resource_spans(_bytes(one)) for number, one in fields(message) if number == 1]


def _resource_spans(message: bytes) -> ResourceSpans:
    attributes: dict[str, Value] = {}
    spans: list[Span] = []
    for number, content in fields(message):
        if number == 1:
            attributes = dict(_pairs(_bytes(content), 1))
        elif number == 2:
            found = (one for field, one in fields(_bytes(content)) if field == 2)
            spans += [_span(_bytes(one)) for one in found]
    return ResourceSpans(SpanResource(attributes), spans)


def _span(message: bytes) -> Span:
    single: dict[int, int | bytes] = {}
    attributes: dict[str, Value] = {}
    links: list[SpanLink] = []
    for number, content in fields(message):
        if number == 9:
            key, value = _pair(_bytes(content))
            attributes[key] = value
        elif number == 13:
            links.append(_link(_bytes(content)))
        else:
            single[number] = content
    status = dict(fields(_bytes(single.get(15, b""))))
    return Span(
        trace_id=_bytes(single.get(1, b"")),
        span_id=_bytes(single.get(2, b"")),
        parent_span_id=_bytes(single.get(4, b"")),
        name=text(_bytes(single.get(5, b""))),
        start_unix_ns=_number(single.get(7, 0)),
        end_unix_ns=_number(single.get(8, 0)),
        attributes=attributes,
        links=tuple(links),
        error=text(_bytes(status.get(2, b""))),
    )


def _link(message: bytes) -> SpanLink:
    ids = dict(fields(message))
    attributes = dict(_pairs(message, 4))
    return SpanLink(_bytes(ids.get(1, b"")), _bytes(ids.get(2, b"")), attributes)


def _pairs(message: bytes, field: int) -> Iterator[tuple[str, Value]]:
    for number, content in fields(message):
        if number == field:
            yield _pair(_bytes(content))


def _pair(message: bytes) -> tuple[str, Value]:
    pair = dict(fields(message))
    return text(_bytes(pair.get(1, b""))), _value(_bytes(pair.get(2, b"")))


def _value(message: bytes) -> Value:
    found: Value = ""
    for number, content in fields(message):
        if number == 1:
            found = text(_bytes(content))
        elif number == 2:
            found = bool(content)
        elif number == 3:
            found = signed(_number(content))
        elif number == 4:
            (found,) = struct.unpack("<d", _number(content).to_bytes(8, "little"))
        elif number == 5:
            found = [_value(_bytes(one)) for field, one in fields(_bytes(content)) if field == 1]  # type: ignore[assignment]
        elif number == 7:
            found = _bytes(content)
    return found


def _bytes(content: int | bytes) -> bytes:
    if isinstance(content, int):
        raise MalformedMessage("a number where bytes should be")
    return content


def _number(content: int | bytes) -> int:
    if isinstance(content, bytes):
        raise MalformedMessage("bytes where a number should be")
    return content
