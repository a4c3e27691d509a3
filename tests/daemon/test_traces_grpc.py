"""Traces over gRPC, asked by a client that knows nothing but what reflection tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_tools import protoc  # type: ignore[import-untyped]
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from hyperbox.daemon.services import traces_messages
from tests.daemon.conftest import Daemon, daemon
from tests.daemon.span_source import TRACE
from tests.daemon.test_traces import CONDITIONS, make

SERVICE = "hyperbox.traces.v1.Traces"
PROTO = Path(traces_messages.__file__).with_name("traces.proto")


class Client:
    """Calls methods by their names, with the messages that the server describes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        self._service = DescriptorPool(self._database).FindServiceByName(SERVICE)

    def services(self) -> set[str]:
        return set(self._database.get_services())

    def call(self, name: str, **fields: object) -> Any:
        method = self._service.FindMethodByName(name)
        asked = message_factory.GetMessageClass(method.input_type)
        answered = message_factory.GetMessageClass(method.output_type)
        kind: Callable[..., Any] = (
            self.channel.unary_stream if name == "Stream" else self.channel.unary_unary
        )
        path = f"/{SERVICE}/{name}"
        call = kind(
            path,
            request_serializer=asked.SerializeToString,
            response_deserializer=answered.FromString,
        )
        return call(asked(**fields), timeout=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, list[str]]]:
    """A daemon with ten spans, and where it serves gRPC."""
    socket = tmp_path_factory.mktemp("grpc") / "grpc.sock"
    with daemon(["-m", "tests.daemon.span_source", "none", str(socket)], None) as running:
        make(running, 10)
        places = [
            record["address"] for record in running.log if "grpc" in record.get("address", "")
        ]
        with running.client() as client:
            while client.get("/traces/stats").json()["store"]["spans"] < 10:
                pass
        assert socket.stat().st_mode & 0o777 == 0o660
        yield running, [place.replace("grpc://", "").replace("grpc+", "") for place in places]
        assert running.end() == 0
        assert not socket.exists()


@pytest.fixture
def client(served: tuple[Daemon, list[str]]) -> Iterator[Client]:
    with grpc.insecure_channel(served[1][0]) as channel:
        yield Client(channel)


def ids(traces: Any) -> list[int]:
    return [
        int.from_bytes(span.span_id, "big")
        for resource in traces.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def test_pages_have_all_spans_the_newest_first(client: Client) -> None:
    found: list[int] = []
    before = ""
    while True:
        page = client.call("List", limit=4, before=before)
        found += ids(page.traces)
        before = page.next
        if not before:
            break
    assert found == list(range(10, 0, -1))


@pytest.mark.parametrize(("conditions", "count"), CONDITIONS)
def test_conditions_are_those_of_http(
    client: Client, conditions: dict[str, str], count: int
) -> None:
    asked: dict[str, object] = {
        name: int(text) if text.isdigit() and name != "trace" else text
        for name, text in conditions.items()
    }
    if "trace" in asked:
        asked = {"trace_id": bytes.fromhex(conditions["trace"])}
    assert len(ids(client.call("List", conditions=asked).traces)) == count


def test_a_trace_is_whole_or_not_found(client: Client) -> None:
    assert ids(client.call("Get", trace_id=TRACE)) == list(range(1, 11))
    with pytest.raises(grpc.RpcError) as refused:
        client.call("Get", trace_id=bytes(16))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_streams_go_on_after_a_cursor_over_the_unix_socket(
    served: tuple[Daemon, list[str]],
) -> None:
    running, places = served
    assert places[1].startswith("unix:/")
    with grpc.insecure_channel(places[1]) as channel:
        client = Client(channel)
        before = client.call("List", limit=1)
        cursor = before.next.partition(".")[0]
        stream = client.call("Stream", after=cursor, conditions={"call": "pread64"})
        make(running, 2)
        message = next(stream)
        assert len(ids(message.traces)) == 2
        again = next(client.call("Stream", after=cursor))
        assert ids(again.traces) == ids(message.traces)
        assert again.cursor == message.cursor
        stream.cancel()
        gap = next(client.call("Stream", after="1-1"))
        assert (gap.notice, gap.reason) == ("gap", "the cursor is of an earlier daemon")


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("List", {"limit": 1001}),
        ("List", {"limit": -1}),
        ("List", {"before": "x"}),
        ("List", {"conditions": {"call": "a b"}}),
        ("List", {"conditions": {"process": -1}}),
        ("List", {"conditions": {"trace_id": b"short"}}),
        ("Get", {"trace_id": b""}),
        ("Stream", {"after": "1"}),
    ],
)
def test_what_makes_no_sense_is_refused(
    client: Client, method: str, fields: dict[str, object]
) -> None:
    def ask() -> None:
        answer = client.call(method, **fields)
        next(answer)  # of a stream

    with pytest.raises(grpc.RpcError) as refused:
        ask()
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details()


def test_health_and_reflection_are_served(client: Client) -> None:
    health = health_pb2_grpc.HealthStub(client.channel)
    for service in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert client.services() >= {SERVICE, "grpc.health.v1.Health"}


def test_the_published_file_describes_what_reflection_does(tmp_path: Path) -> None:
    """protoc compiles traces.proto, with OTLP's own files as they are in their package."""
    known = descriptor_pb2.FileDescriptorSet()
    for module in (common_pb2, resource_pb2, trace_pb2):
        module.DESCRIPTOR.CopyToProto(known.file.add())
    (tmp_path / "known").write_bytes(known.SerializeToString())
    target = tmp_path / "hyperbox/traces/v1/traces.proto"
    target.parent.mkdir(parents=True)
    target.write_bytes(PROTO.read_bytes())
    options = [
        f"--descriptor_set_in={tmp_path / 'known'}",
        f"--proto_path={tmp_path}",
        f"--descriptor_set_out={tmp_path / 'made'}",
        "hyperbox/traces/v1/traces.proto",
    ]
    assert protoc.main(["protoc", *options]) == 0
    made = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "made").read_bytes())
    assert list(made.file) == [traces_messages.FILE]


def test_the_file_is_served(served: tuple[Daemon, list[str]]) -> None:
    with served[0].client() as http:
        assert http.get("/traces.proto").content == PROTO.read_bytes()


@pytest.mark.root
def test_where_nothing_is_traced_calls_are_unavailable_with_the_reason() -> None:
    options = ["--socket", "none", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--trace"]
    # In a pid namespace of its own the tracer cannot trace.
    with daemon(["-c", _IN_NAMESPACE, *options], None) as running:
        [place] = [one["address"] for one in running.log if "grpc" in one.get("address", "")]
        with grpc.insecure_channel(place.removeprefix("grpc://")) as channel:
            client = Client(channel)
            with pytest.raises(grpc.RpcError) as refused:
                client.call("List")
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "pid namespace" in str(refused.value.details())
            health = health_pb2_grpc.HealthStub(channel)
            answer = health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


_IN_NAMESPACE = """
import os, sys
unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
command = [sys.executable, "-m", "hyperbox", "daemon", *sys.argv[1:]]
os.execvp(unshare[0], [*unshare, *command])
"""


def test_a_taken_socket_is_one_line(tmp_path: Path, served: tuple[Daemon, list[str]]) -> None:
    taken = served[1][1].removeprefix("unix:")
    refused = pytest.raises(AssertionError, match="another daemon serves")
    with refused, daemon(["-m", "tests.daemon.span_source", "none", taken], None):
        pass
