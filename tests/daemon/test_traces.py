"""The endpoints below /traces, asked over HTTP while spans come."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence

import httpx
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from hyperbox.daemon.negotiation import preferred
from hyperbox.daemon.services.traces_request import STATS
from tests.daemon.conftest import PATIENCE_S, Daemon, daemon
from tests.daemon.span_source import TRACE
from tests.observability.peers import HttpPeer, http_peer

PROTOBUF = {"accept": "application/x-protobuf"}
CONDITIONS: Sequence[tuple[dict[str, str], int]] = (
    ({"call": "pread64"}, 10),
    ({"call": "openat"}, 0),
    ({"error": "EBADF"}, 9),
    ({"container": "abcdef"}, 10),
    ({"container": "abd"}, 0),
    ({"process": "1"}, 0),
    ({"min_duration_ns": str(10**12)}, 0),
    ({"until_unix_ns": "1"}, 0),
    ({"since_unix_ns": "1"}, 10),
    ({"trace": TRACE.hex()}, 10),
)
"""What is asked for, and how many of ten spans are found."""


@pytest.fixture(scope="module")
def collector() -> Iterator[HttpPeer]:
    with http_peer() as peer:
        yield peer


@pytest.fixture(scope="module")
def traced(collector: HttpPeer) -> Iterator[Daemon]:
    argv = ["-m", "tests.daemon.span_source", f"http://127.0.0.1:{collector.port}"]
    with daemon(argv, None) as running:
        make(running, 10)
        with running.client() as client:
            while client.get("/traces/stats").json()["store"]["spans"] < 10:
                pass
        yield running
        assert running.end() == 0
        assert {record["level"] for record in running.log} == {"info"}


def make(running: Daemon, count: int, size: int = 0) -> None:
    """Let the daemon make spans."""
    assert running.process.stdin is not None
    running.process.stdin.write(f"{count} {size}\n")
    running.process.stdin.flush()


def ids(found: dict[str, list[dict[str, list[dict[str, list[dict[str, str]]]]]]]) -> list[int]:
    return [
        int(span["spanId"], 16)
        for resource in found["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def test_pages_have_all_spans_the_newest_first(traced: Daemon) -> None:
    with traced.client() as client:
        found: list[int] = []
        before: dict[str, str] = {}
        while True:
            page = client.get("/traces", params={"limit": 4, **before}).json()
            found += ids(page)
            if page["next"] is None:
                break
            before = {"before": page["next"]}
    assert found == list(range(10, 0, -1))


@pytest.mark.parametrize(("conditions", "count"), CONDITIONS)
def test_conditions(traced: Daemon, conditions: dict[str, str], count: int) -> None:
    with traced.client() as client:
        assert len(ids(client.get("/traces", params=conditions).json())) == count


@pytest.mark.parametrize(
    "query",
    [
        "process=x",
        "limit=0",
        "limit=1001",
        "before=zz",
        "call=a/b",
        "trace=12",
        "process=" + "9" * 99,
    ],
)
def test_values_that_make_no_sense_are_400(traced: Daemon, query: str) -> None:
    with traced.client() as client:
        answer = client.get(f"/traces?{query}")
        assert answer.status_code == 400
        assert query.partition("=")[0] in answer.json()["detail"]


def test_a_trace_in_both_encodings(traced: Daemon) -> None:
    with traced.client() as client:
        as_json = client.get(f"/traces/{TRACE.hex()}")
        binary = client.get(f"/traces/{TRACE.hex()}", headers=PROTOBUF)
        assert as_json.headers["content-type"] == "application/json"
        assert binary.headers["content-type"] == "application/x-protobuf"
        data = TracesData.FromString(binary.content)
        numbers = [
            int.from_bytes(span.span_id, "big")
            for resource in data.resource_spans
            for span in resource.scope_spans[0].spans
        ]
        assert numbers == ids(as_json.json()) == list(range(1, 11))
        assert client.get(f"/traces/{'0' * 32}").status_code == 404
        assert client.get("/traces/xyz").status_code == 400


def test_batches_are_followed_by_cursor(traced: Daemon) -> None:
    with traced.client() as client:
        first = client.get("/traces/batches")
        assert first.headers["hyperbox-missed"] == "0"
        assert len(TracesData.FromString(first.content).resource_spans) == 1
        cursor = first.headers["hyperbox-cursor"]
        after = client.get("/traces/batches", params={"after": cursor})
        assert (after.content, after.headers["hyperbox-cursor"]) == (b"", cursor)
        other = client.get("/traces/batches", params={"after": "1-1"})
        assert other.headers["hyperbox-missed"] == "-1"
        assert other.content == first.content


def test_statistics_and_metrics_say_what_was_lost(traced: Daemon, collector: HttpPeer) -> None:
    collector.wait_for(1)
    with traced.client() as client:
        said = client.get("/traces/stats").json()
        jsonschema.validate(said, STATS)
        assert said["source"]["mode"] == "every"
        assert said["lost"]["ring_full"] == 2
        metrics = client.get("/metrics").text
    assert 'hyperbox_traces_lost_total{cause="ring_full"} 2.0' in metrics
    assert 'hyperbox_traces_lost_total{cause="export_queue_full"} 0.0' in metrics
    assert collector.got[0].pids[0] == traced.process.pid  # and the container's text, read as 0


def test_document_describes_all(traced: Daemon) -> None:
    with traced.client() as client:
        document = client.get("/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    assert document["paths"].keys() > {"/traces", "/traces/{trace_id}", "/traces/stream"}


def test_streams_are_resumed_where_they_ended(traced: Daemon) -> None:
    """From here on spans come; tests about fixed numbers are above."""
    with traced.client() as client:
        with client.stream("GET", "/traces/stream") as stream:
            assert stream.headers["content-type"].startswith("application/x-ndjson")
            lines = stream.iter_lines()
            make(traced, 2)
            first = json.loads(next(lines))
            assert ids(first) == [11, 12]
        make(traced, 3)
        with client.stream("GET", f"/traces/stream?after={first['cursor']}") as stream:
            assert ids(json.loads(next(stream.iter_lines()))) == [13, 14, 15]
        events = {"accept": "text/event-stream", "last-event-id": first["cursor"]}
        with client.stream("GET", "/traces/stream?error=EBADF", headers=events) as stream:
            lines = stream.iter_lines()
            number, kind, data, empty = (next(lines) for _ in range(4))
            assert (kind, empty) == ("event: spans", "")
            assert number.startswith("id: ")
            assert ids(json.loads(data.removeprefix("data: "))) == [13, 14, 15]
        old = client.stream("GET", "/traces/stream?after=1-5")
        with old as stream:
            assert "gap" in json.loads(next(stream.iter_lines()))
        assert client.head("/traces/stream").status_code == 200
        wrong = client.get("/traces/stream", headers=events | {"last-event-id": "x"})
        assert wrong.status_code == 400


def test_a_slow_reader_is_dropped_and_told_so(traced: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", traced.port), PATIENCE_S) as wire:
        wire.sendall(b"GET /traces/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = wire.recv(1 << 16)
        for _ in range(30):
            make(traced, 1000, 200)
        with traced.client() as client:
            while client.get("/traces/stats").json()["store"]["added"] < 30_000:
                pass
        while chunk := wire.recv(1 << 20):
            got += chunk
            if b'{"dropped": {"reason": "too slow"}' in got[-4096:]:
                break
    assert b'{"dropped": {"reason": "too slow"}' in got
    with traced.client() as client:
        assert client.get("/traces/stats").json()["dropped_readers"] == 1


def test_preferred_media_type() -> None:
    offered = ("application/json", "application/x-protobuf")
    for accept, expected in (
        ("", offered[0]),
        ("*/*", offered[0]),
        ("text/html", offered[0]),
        ("application/x-protobuf", offered[1]),
        ("application/json;q=0.2, application/*;q=0.5", offered[1]),
        ("application/x-protobuf;q=0.1, */*", offered[0]),
        ("APPLICATION/X-PROTOBUF;q=x, application/json;q=0", offered[0]),
    ):
        assert preferred(accept, offered) == expected


def test_streams_end_with_the_daemon() -> None:
    with (
        daemon(["-m", "tests.daemon.span_source"], None) as running,
        running.client() as client,
        client.stream("GET", "/traces/stream") as stream,
    ):
        running.process.terminate()
        assert "end" in json.loads([*stream.iter_lines()][-1])
        assert running.process.wait(PATIENCE_S) == 0


def test_without_tracing_the_reason_is_said(shared: Daemon) -> None:
    with shared.client() as client:
        for path in ("/traces", "/traces/stream", "/traces/batches", f"/traces/{TRACE.hex()}"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert "tracing was not asked for" in answer.json()["detail"]
        assert client.get("/traces/stats").json()["available"] is False
        with pytest.raises(httpx.HTTPStatusError):
            client.get("/traces").raise_for_status()


@pytest.mark.root
def test_the_daemon_traces_what_runs_on_this_machine() -> None:
    """The whole way: programs in the kernel, the tracer, the store, a client."""
    argv = ["-m", "hyperbox", "daemon", "--trace", "--socket", "none", "--listen", "127.0.0.1:0"]
    with (
        daemon(argv, None) as running,
        running.client() as client,
    ):
        assert client.get("/healthz").json()["services"]["traces"]["state"] == "running"
        subprocess.run(["ls", "/nowhere-at-all"], check=False, capture_output=True)
        deadline = time.monotonic() + PATIENCE_S
        found: set[str] = set()
        while "ls" not in found and time.monotonic() < deadline:
            page = client.get("/traces", params={"limit": 1000}).json()
            found = {
                attribute["value"]["stringValue"]
                for resource in page["resourceSpans"]
                for attribute in resource["resource"]["attributes"]
                if attribute["key"] == "process.executable.name"
            }
        assert "ls" in found
        stats = client.get("/traces/stats").json()
        assert stats["source"]["calls"] > 0
        assert stats["export"]["exported"] == 0, "there is no collector here"
        assert running.end() == 0
