"""Spans as opentelemetry-proto's own classes have them, and arbitrary spans to encode."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

import hyperbox
from hyperbox.observability.spans import (
    Attributes,
    ResourceSpans,
    Span,
    SpanLink,
    SpanResource,
    Value,
)


def traces_data(batches: Sequence[ResourceSpans]) -> trace_pb2.TracesData:
    """Return what an encoding of the batches has to mean."""
    data = trace_pb2.TracesData()
    for batch in batches:
        whole = data.resource_spans.add()
        whole.resource.attributes.extend(_attributes(batch.resource.attributes))
        scoped = whole.scope_spans.add()
        scoped.scope.name, scoped.scope.version = "hyperbox.observability", hyperbox.__version__
        scoped.spans.extend(_span(span) for span in batch.spans)
    return data


def _span(span: Span) -> trace_pb2.Span:
    found = trace_pb2.Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        name=_text(span.name),
        kind=trace_pb2.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=span.start_unix_ns,
        end_time_unix_nano=span.end_unix_ns,
        attributes=_attributes(span.attributes),
    )
    for link in span.links:
        found.links.add(
            trace_id=link.trace_id, span_id=link.span_id, attributes=_attributes(link.attributes)
        )
    if span.error:
        found.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        found.status.message = _text(span.error)
    return found


def _attributes(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=_text(key), value=_value(value)) for key, value in attributes.items()]


def _value(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        fits = -(2**63) <= value < 2**63
        return AnyValue(int_value=value) if fits else AnyValue(string_value=str(value))
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=_text(value))
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    return AnyValue(array_value=ArrayValue(values=[_value(one) for one in value]))


def _text(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


TEXTS = st.text(st.characters(), max_size=20)  # surrogates too: what os.fsdecode makes of junk
_INTEGERS = st.integers(-(2**63), 2**64 - 1)
_FLOATS = st.one_of(st.floats(allow_nan=False), st.just(math.nan))  # JSON has one NaN only
_VALUES = st.one_of(
    st.booleans(),
    _INTEGERS,
    _FLOATS,
    TEXTS,
    st.binary(max_size=20),
    st.lists(st.booleans(), max_size=3),
    st.lists(_INTEGERS, max_size=3),
    st.lists(_FLOATS, max_size=3),
    st.lists(TEXTS, max_size=3),
)
_ATTRIBUTES = st.dictionaries(TEXTS, _VALUES, max_size=4)
_TRACE_IDS = st.binary(min_size=16, max_size=16)
_SPAN_IDS = st.binary(min_size=8, max_size=8)
_TIMES = st.integers(0, 2**64 - 1)
SPANS = st.builds(
    Span,
    trace_id=_TRACE_IDS,
    span_id=_SPAN_IDS,
    name=TEXTS,
    start_unix_ns=_TIMES,
    end_unix_ns=_TIMES,
    parent_span_id=st.one_of(st.just(b""), _SPAN_IDS),
    attributes=_ATTRIBUTES,
    links=st.lists(st.builds(SpanLink, _TRACE_IDS, _SPAN_IDS, _ATTRIBUTES), max_size=2),
    error=TEXTS,
)
BATCHES = st.lists(
    st.builds(ResourceSpans, st.builds(SpanResource, _ATTRIBUTES), st.lists(SPANS, max_size=3)),
    max_size=3,
)
