"""OTLP's protobuf encoding, judged by opentelemetry-proto's classes, and read back."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from hyperbox.observability.otlp_decoding import decode
from hyperbox.observability.otlp_protobuf import encode
from hyperbox.observability.protobuf_wire import MalformedMessage, fields, signed, varint
from hyperbox.observability.spans import ResourceSpans, Span, SpanResource
from tests.observability.reference import BATCHES, traces_data

SPAN = Span(b"t" * 16, b"s" * 8, "read", 1, 2)


@given(BATCHES)
def test_is_what_the_classes_write_byte_for_byte(batches: Sequence[ResourceSpans]) -> None:
    assert encode(batches) == traces_data(batches).SerializeToString(deterministic=True)


@given(BATCHES, BATCHES)
def test_joined_encodings_are_one_request(
    first: Sequence[ResourceSpans], second: Sequence[ResourceSpans]
) -> None:
    request = ExportTraceServiceRequest.FromString(encode(first) + encode(second))
    both = traces_data([*first, *second])
    assert request.SerializeToString() == both.SerializeToString()


@given(BATCHES)
def test_reading_it_back_loses_nothing(batches: Sequence[ResourceSpans]) -> None:
    message = encode(batches)
    assert encode(decode(message)) == message


def test_reads_what_other_encoders_write() -> None:
    """Fields that we never write, in another order, and the same field twice."""
    data = traces_data([ResourceSpans(SpanResource({"process.pid": 1}), [SPAN])])
    span = data.resource_spans[0].scope_spans[0].spans[0]
    span.events.add(name="deprecated")
    span.trace_state = "k=v"
    span.flags = 0x101
    data.resource_spans[0].schema_url = "https://opentelemetry.io/schemas/1.30.0"
    later = TracesData()
    later.resource_spans.add().scope_spans.add().spans.add(name="write")
    first, second = decode(data.SerializeToString() + later.SerializeToString())
    assert first == ResourceSpans(SpanResource({"process.pid": 1}), [SPAN])
    assert [one.name for one in second.spans] == ["write"]


def test_text_that_is_not_utf8_costs_only_itself() -> None:
    name = os.fsdecode(b"na\xffme")
    span = replace(SPAN, attributes={"hyperbox.a": name, "hyperbox.b": "kept"})
    [batch] = decode(encode([ResourceSpans(SpanResource({}), [span, SPAN])]))
    assert batch.spans[0].attributes == {"hyperbox.a": "na\ufffdme", "hyperbox.b": "kept"}
    assert batch.spans[1] == SPAN


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_survive(number: int) -> None:
    [(_, value)] = fields(b"\x08" + varint(number))
    assert isinstance(value, int)
    assert signed(value) == number


@given(st.binary(max_size=60))
def test_junk_is_refused_or_read(message: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        decode(message)


@pytest.mark.parametrize(
    "message",
    [b"\x0a\x05abc", b"\x0a", b"\x80" * 11, b"\x0b", b"\x00\x00", b"\x09abc", b"\x08\x01"],
)
def test_broken_messages_are_refused(message: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(message)


def test_not_a_number_survives() -> None:
    span = replace(SPAN, attributes={"hyperbox.share": math.nan})
    [batch] = decode(encode([ResourceSpans(SpanResource({}), [span])]))
    value = batch.spans[0].attributes["hyperbox.share"]
    assert isinstance(value, float)
    assert math.isnan(value)
