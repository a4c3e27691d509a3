"""The exporter against peers that misbehave: every rule of OTLP, and every span counted."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from hyperbox.observability.batches import cut
from hyperbox.observability.delivery import Backoff
from hyperbox.observability.export_grpc import GrpcTransport
from hyperbox.observability.export_http import HttpTransport
from hyperbox.observability.export_target import ExportProtocol, ExportTarget
from hyperbox.observability.exporter import Exporter, ExportTransport
from hyperbox.observability.spans import ResourceSpans, Span, SpanResource
from tests.observability.peers import (
    PATIENCE_S,
    Call,
    Step,
    answer,
    batch,
    break_off,
    drip,
    grpc_peer,
    hang_up,
    http_peer,
)
from tests.observability.test_delivery import status

PARTIAL = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
).SerializeToString()


def over_http(port: int, timeout_s: float = PATIENCE_S, gzip: bool = False) -> HttpTransport:
    url = f"http://127.0.0.1:{port}/v1/traces"
    protocol = ExportProtocol.HTTP_PROTOBUF
    return HttpTransport(ExportTarget(protocol, url, timeout_s=timeout_s, gzip=gzip))


def over_grpc(port: int, gzip: bool = False) -> GrpcTransport:
    address = f"127.0.0.1:{port}"
    return GrpcTransport(
        ExportTarget(ExportProtocol.GRPC, address, timeout_s=PATIENCE_S, gzip=gzip)
    )


@contextmanager
def exporter(transport: ExportTransport, **settings: int) -> Iterator[Exporter]:
    """An exporter that waits milliseconds where the usual one waits seconds."""
    quick = Backoff(0.001, 0.01, random.Random(1))
    running = Exporter(transport, backoff=quick, **settings)
    running.start()
    try:
        yield running
    finally:
        running.close()


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize("protocol", [ExportProtocol.HTTP_PROTOBUF, ExportProtocol.HTTP_JSON])
def test_http_requests_are_what_the_specification_wants(
    protocol: ExportProtocol, gzip: bool
) -> None:
    with http_peer() as peer:
        url = f"http://127.0.0.1:{peer.port}/at/v1/traces"
        target = ExportTarget(protocol, url, headers={"authorization": "Bearer x"}, gzip=gzip)
        with exporter(HttpTransport(target)) as running:
            running.add([batch(1), batch(2, spans=4)])
            report = running.close(PATIENCE_S)
        assert (report.exported, report.waiting, report.trouble) == (5, 0, "")
        [request] = peer.got
        assert request.pids == [1, 2]
        assert request.headers[":path"] == "/at/v1/traces"
        assert request.headers["authorization"] == "Bearer x"
        assert request.headers.get("content-encoding") == ("gzip" if gzip else None)
        kind = "json" if protocol is ExportProtocol.HTTP_JSON else "x-protobuf"
        assert request.headers["content-type"] == f"application/{kind}"
        assert request.headers["user-agent"].startswith("OTel-OTLP-Exporter-hyperbox/")


@pytest.mark.parametrize(
    ("script", "requests", "exported", "rejected", "refused"),
    [
        ([answer(code) for code in (429, 502, 503, 504)], 5, 3, 0, 0),
        ([answer(503, retry_after="0"), hang_up], 3, 3, 0, 0),
        ([answer(400)], 1, 0, 0, 3),
        ([answer(500)], 1, 0, 0, 3),
        ([answer(301, location="/elsewhere")], 1, 0, 0, 3),
        ([answer(200, PARTIAL)], 1, 1, 2, 0),
        ([answer(202)], 1, 3, 0, 0),
        ([answer(200, b"\xff\xff")], 1, 3, 0, 0),
        ([break_off], 1, 3, 0, 0),  # the status was success: never again
    ],
)
def test_http_answers_lead_to_what_the_specification_wants(
    script: Sequence[Step], requests: int, exported: int, rejected: int, refused: int
) -> None:
    with http_peer(*script) as peer, exporter(over_http(peer.port)) as running:
        running.add([batch(1, spans=3)])
        report = running.close(PATIENCE_S)
        assert len(peer.got) == requests
        assert {tuple(one.pids) for one in peer.got} == {(1,)}
        assert (report.exported, report.rejected, report.refused) == (exported, rejected, refused)


def test_a_kept_connection_that_has_ended_is_no_trouble() -> None:
    with http_peer(answer(200, connection="close"), hang_up) as peer:
        transport = over_http(peer.port)
        with exporter(transport) as running:
            running.add([batch(1)])
            peer.wait_for(1)
            running.add([batch(2)])
            assert running.close(PATIENCE_S).exported == 2


def test_a_peer_that_drips_is_left_in_time() -> None:
    with http_peer(drip) as peer, exporter(over_http(peer.port, timeout_s=0.2)) as running:
        running.add([batch(1)])
        report = running.close(PATIENCE_S)
        assert (report.exported, report.retries) == (1, 1)


def test_a_request_that_is_too_large_is_not_sent_again_and_the_next_is_smaller() -> None:
    with http_peer(answer(413)) as peer:
        with exporter(over_http(peer.port), largest_request=256 << 10) as running:
            running.add([batch(number, text="x" * 60_000) for number in range(4)])
            peer.wait_for(1)
            running.add([batch(number, text="x" * 60_000) for number in range(4, 8)])
            report = running.close(PATIENCE_S)
        sent = [one.pids for one in peer.got]
        assert sent == [[0, 1, 2, 3], [4, 5], [6, 7]]
        assert (report.refused, report.exported) == (4, 4)


def test_requests_stay_below_the_limit_in_bytes() -> None:
    with http_peer() as peer:
        with exporter(over_http(peer.port), largest_request=100_000) as running:
            running.add([batch(number, text="x" * 30_000) for number in range(20)])
            report = running.close(PATIENCE_S)
        assert max(len(one.body) for one in peer.got) <= 100_000
        assert [pid for one in peer.got for pid in one.pids] == list(range(20))
        assert report.exported == 20


def test_without_a_peer_the_oldest_are_dropped_and_the_rest_comes_when_it_does() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    with exporter(over_grpc(port), queue_bytes=50_000) as running:
        for number in range(100):
            running.add([batch(number, text="x" * 1000)])
            assert running.report().waiting_bytes <= 50_000
        dropped = running.report().dropped_full
        assert 0 < dropped < 100
        with grpc_peer(port=port) as peer:
            report = running.close(PATIENCE_S)
        sent = [pid for one in peer.got for pid in one.pids]
        # What is under way at the moment is no older than it; all else that is missing is.
        assert sent == sorted(sent)
        assert len(sent) == 100 - dropped
        assert sum(sent) > sum(range(100 - dropped))
        assert (report.exported, report.dropped_full) == (100 - dropped, dropped)


def test_what_is_left_at_the_end_is_counted() -> None:
    with http_peer(*[answer(503)] * 1000) as peer, exporter(over_http(peer.port)) as running:
        running.add([batch(1, spans=7)])
        peer.wait_for(3)
        report = running.close()
        running.add([batch(2)])
        assert report.dropped_at_end == 7
        assert running.report().dropped_at_end == 8
        assert running.report().waiting == 0


def test_a_wait_that_the_peer_asks_for_is_not_cut_short_by_more_spans() -> None:
    with http_peer(answer(503, retry_after="3600")) as peer:
        with exporter(over_http(peer.port)) as running:
            running.add([batch(1)])
            peer.wait_for(1)
            for number in range(50):
                running.add([batch(number)])
            report = running.close(0.1)
        assert len(peer.got) == 1
        assert report.dropped_at_end == 51


@pytest.mark.parametrize("gzip", [False, True])
def test_grpc_requests_are_what_the_specification_wants(gzip: bool) -> None:
    with grpc_peer() as peer, exporter(over_grpc(peer.port, gzip)) as running:
        running.add([batch(1), batch(2)])
        assert running.close(PATIENCE_S).exported == 2
        [request] = peer.got
        assert request.pids == [1, 2]
        assert request.headers["user-agent"].startswith("OTel-OTLP-Exporter-hyperbox/")


@pytest.mark.parametrize(
    ("script", "requests", "exported", "rejected", "refused"),
    [
        ([Call(grpc.StatusCode.UNAVAILABLE), Call(grpc.StatusCode.ABORTED)], 3, 3, 0, 0),
        ([Call(grpc.StatusCode.INVALID_ARGUMENT, "no")], 1, 0, 0, 3),
        ([Call(grpc.StatusCode.RESOURCE_EXHAUSTED)], 1, 0, 0, 3),
        (
            [
                Call(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    trailers=[("grpc-status-details-bin", status(0, 1_000_000))],
                )
            ],
            2,
            3,
            0,
            0,
        ),
        ([Call(body=PARTIAL)], 1, 1, 2, 0),
    ],
)
def test_grpc_answers_lead_to_what_the_specification_wants(
    script: Sequence[Call], requests: int, exported: int, rejected: int, refused: int
) -> None:
    with grpc_peer(*script) as peer, exporter(over_grpc(peer.port)) as running:
        running.add([batch(1, spans=3)])
        report = running.close(PATIENCE_S)
        assert len(peer.got) == requests
        assert (report.exported, report.rejected, report.refused) == (exported, rejected, refused)


def test_batches_are_cut_below_their_size_and_what_is_larger_is_counted() -> None:
    spans = [
        Span(b"t" * 16, bytes([n]) * 8, "x" * size, 1, 2) for n, size in enumerate([900, 5000] * 5)
    ]
    batches, oversized = cut([ResourceSpans(SpanResource({"process.pid": 1}), spans)], 2200)
    assert oversized == 5
    assert [one.spans for one in batches] == [2, 2, 1]
    assert max(len(one.data) for one in batches) <= 2200
