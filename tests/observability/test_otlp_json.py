"""OTLP's JSON mapping, judged by protobuf's reader of JSON and opentelemetry-proto's classes."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from google.protobuf import json_format
from hypothesis import given
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from hyperbox.observability.otlp_json import encode
from hyperbox.observability.spans import ResourceSpans, Span, SpanResource
from tests.observability.reference import BATCHES, traces_data

SPAN = Span(
    bytes.fromhex("5b8efff798038103d269b633813fc60c"),
    bytes.fromhex("eee19b7ec3c1b174"),
    "read",
    1544712660000000000,
    1544712661000000000,
    bytes.fromhex("eee19b7ec3c1b173"),
    {"process.pid": 42},
)


@given(BATCHES)
def test_means_what_the_classes_mean(batches: Sequence[ResourceSpans]) -> None:
    line = encode(batches)
    assert b"\n" not in line
    read = json_format.Parse(json.dumps(_ids_in_base64(json.loads(line))), TracesData())
    # Byte for byte: a NaN is not equal to itself.
    assert read.SerializeToString() == traces_data(batches).SerializeToString()


def test_is_written_as_the_specification_has_it() -> None:
    """Ids in hex and 64-bit integers as strings, where protobuf's own mapping has base64."""
    [resource_spans] = json.loads(encode([ResourceSpans(SpanResource({}), [SPAN])]))[
        "resourceSpans"
    ]
    [scope_spans] = resource_spans["scopeSpans"]
    assert scope_spans["spans"] == [
        {
            "traceId": "5b8efff798038103d269b633813fc60c",
            "spanId": "eee19b7ec3c1b174",
            "parentSpanId": "eee19b7ec3c1b173",
            "name": "read",
            "kind": 1,
            "startTimeUnixNano": "1544712660000000000",
            "endTimeUnixNano": "1544712661000000000",
            "attributes": [{"key": "process.pid", "value": {"intValue": "42"}}],
        }
    ]


def _ids_in_base64(value: object) -> object:
    """Write ids as protobuf's own JSON mapping has them; it is what OTLP deviates from."""
    if isinstance(value, list):
        return [_ids_in_base64(one) for one in value]
    if not isinstance(value, dict):
        return value
    ids = ("traceId", "spanId", "parentSpanId")
    return {
        key: base64.b64encode(bytes.fromhex(one)).decode() if key in ids else _ids_in_base64(one)
        for key, one in value.items()
    }
