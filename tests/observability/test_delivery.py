"""What answers of OTLP peers mean, by the tables of the OTLP specification."""

from __future__ import annotations

import gzip
import json
import random
from datetime import UTC, datetime

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from hyperbox.observability.delivery import (
    Backoff,
    Delivered,
    Refused,
    Retry,
    of_grpc,
    of_http,
)
from hyperbox.observability.protobuf_wire import delimited, varint

NOW_S = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
PARTIAL = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=3, error_message="too old")
).SerializeToString()


def status(seconds: int | None, nanos: int = 0) -> bytes:
    """A google.rpc.Status with a RetryInfo, after a detail of another type."""
    details = [Any(type_url="type.googleapis.com/google.rpc.DebugInfo", value=b"\x0a\x01x")]
    if seconds is not None:
        info = delimited(1, Duration(seconds=seconds, nanos=nanos).SerializeToString())
        details.append(Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=info))
    packed = b"".join(delimited(3, one.SerializeToString()) for one in details)
    return b"\x08" + varint(8) + delimited(2, b"busy") + packed


def test_http_statuses_that_are_retried_are_those_of_the_specification() -> None:
    outcomes = {code: of_http(code, {}, b"", now_s=NOW_S) for code in range(100, 600)}
    retried = {code for code, outcome in outcomes.items() if type(outcome) is Retry}
    delivered = {code for code, outcome in outcomes.items() if type(outcome) is Delivered}
    refused = {code for code, outcome in outcomes.items() if type(outcome) is Refused}
    assert retried == {429, 502, 503, 504}
    assert delivered == {*range(200, 300)}
    assert refused == {*outcomes} - retried - delivered
    assert [code for code in outcomes if getattr(outcomes[code], "too_large", False)] == [413]


@pytest.mark.parametrize("code", range(17))
def test_grpc_statuses_that_are_retried_are_those_of_the_specification(code: int) -> None:
    outcome = of_grpc(code, "said", b"", b"")
    retried = code in (1, 4, 10, 11, 14, 15)  # RESOURCE_EXHAUSTED only where RetryInfo says so
    assert type(outcome) is (Delivered if code == 0 else Retry if retried else Refused)


def test_retry_info_makes_an_exhausted_peer_worth_retrying() -> None:
    assert of_grpc(8, "", status(2, 500_000_000), b"") == Retry("gRPC status 8", 2.5)
    assert of_grpc(8, "", status(None), b"") == Refused("gRPC status 8", too_large=True)
    assert of_grpc(14, "down", status(7), b"") == Retry("gRPC status 14: down", 7.0)
    assert of_grpc(3, "", status(7), b"") == Refused("gRPC status 3")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Tue, 01 Dec 2026 00:00:30 GMT", 30.0),
        ("Mon, 30 Nov 2026 00:00:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("9" * 5000, 999_999_999.0),
        ("Tue, 99 Dec 2026 00:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    outcome = of_http(503, {"retry-after": header}, b"", now_s=NOW_S)
    assert outcome == Retry("HTTP status 503", seconds)


def test_partial_success_is_read_in_every_encoding() -> None:
    expected = Delivered(3, "too old")
    assert of_grpc(0, "", b"", PARTIAL) == expected
    assert of_http(200, {}, PARTIAL, now_s=NOW_S) == expected
    packed = {"content-encoding": "gzip"}
    assert of_http(202, packed, gzip.compress(PARTIAL), now_s=NOW_S) == expected
    said = {"partialSuccess": {"rejectedSpans": "3", "errorMessage": "too old"}, "later": 1}
    kind = {"content-type": "application/json; charset=utf-8"}
    assert of_http(200, kind, json.dumps(said).encode(), now_s=NOW_S) == expected


def test_what_a_peer_says_of_a_refusal_is_in_the_reason() -> None:
    body = b"\x08\x03" + delimited(2, b"span has\nno id")
    assert of_http(400, {}, body, now_s=NOW_S) == Refused("HTTP status 400: span has no id")
    kind = {"content-type": "application/json"}
    assert of_http(400, kind, b'{"message": "no"}', now_s=NOW_S) == Refused("HTTP status 400: no")


@given(st.integers(200, 599), st.binary(max_size=50), st.sampled_from(["", "gzip"]))
def test_no_answer_breaks_the_reader(code: int, body: bytes, encoding: str) -> None:
    for kind in ("application/json", "application/x-protobuf"):
        headers = {"content-type": kind, "content-encoding": encoding}
        outcome = of_http(code, headers, body, now_s=NOW_S)
        assert isinstance(outcome, Delivered) == (code < 300)
    of_grpc(code % 17, "", body, body)


@given(st.integers(0, 2**32), st.lists(st.one_of(st.none(), st.floats(0, 1e9)), max_size=40))
def test_waits_double_with_jitter_and_are_never_shorter_than_asked(
    seed: int, asked: list[float | None]
) -> None:
    backoff = Backoff(1.0, 30.0, random.Random(seed))
    for tries, after_s in enumerate(asked):
        usual = min(30.0, 2.0**tries)
        wait_s = backoff.wait_s(after_s)
        assert wait_s >= min(after_s or 0.0, 3600.0)
        assert usual / 2 <= wait_s <= max(usual, min(after_s or 0.0, 3600.0))
    backoff.reset()
    assert backoff.wait_s(None) <= 1.0
