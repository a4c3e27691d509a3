"""OTLP peers that answer by a script, and remember what they got."""

from __future__ import annotations

import contextlib
import gzip
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hyperbox.observability.batches import Batch, cut
from hyperbox.observability.spans import ResourceSpans, Span, SpanResource

PATIENCE_S = 30.0  # until a test gives up; no assertion about speed


def batch(number: int, spans: int = 1, text: str = "") -> Batch:
    """Return spans of process `number`."""
    name = f"read{number}"
    one = Span(b"t" * 16, number.to_bytes(8, "big"), name, 1, 2, attributes={"hyperbox.text": text})
    [found], _ = cut([ResourceSpans(SpanResource({"process.pid": number}), [one] * spans)])
    return found


@dataclass
class Received:
    """A request as the peer got it."""

    headers: dict[str, str]
    body: bytes

    @property
    def pids(self) -> list[int]:
        """Whose spans they are, read by opentelemetry-proto's classes."""
        request = ExportTraceServiceRequest()
        if self.headers.get("content-type") == "application/json":
            json_format.Parse(self.body, request)
        else:
            request.ParseFromString(self.body)
        return [
            one.value.int_value
            for spans in request.resource_spans
            for one in spans.resource.attributes
        ]


Step = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class HttpPeer:
    """Answers each request with the next step of its script, and then with 200."""

    script: list[Step] = field(default_factory=list)
    got: list[Received] = field(default_factory=list)
    port: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, requests: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= requests, PATIENCE_S)


def answer(code: int, body: bytes = b"", **headers: str) -> Step:
    """Return the step that answers like this."""

    def step(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return step


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """End the connection without an answer."""
    handler.close_connection = True


def break_off(handler: BaseHTTPRequestHandler) -> None:
    """Say 200, and end the connection in the middle of the body."""
    handler.send_response(200)
    handler.send_header("content-length", "100")
    handler.end_headers()
    handler.wfile.write(b"\x0a")
    handler.close_connection = True


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Answer a byte at a time, without end."""
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 ")
        while True:
            handler.wfile.write(b"0")
            handler.wfile.flush()
            threading.Event().wait(0.01)


@contextlib.contextmanager
def http_peer(*script: Step, tls: ssl.SSLContext | None = None) -> Iterator[HttpPeer]:
    """Serve OTLP/HTTP on loopback."""
    peer = HttpPeer(list(script))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            headers[":path"] = self.path
            with peer.changed:
                step = peer.script.pop(0) if peer.script else answer(200)
                peer.got.append(Received(headers, body))
                peer.changed.notify_all()
            step(self)

        def log_message(self, *_arguments: Any) -> None:
            """Nobody reads it."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that break off are what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    peer.port = server.server_address[1]
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Call:
    """How a call ends: a status with its text and trailers, or an answer."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailers: Sequence[tuple[str, bytes]] = ()
    body: bytes = b""


@dataclass
class GrpcPeer:
    """Answers each call with the next of its script, and then with success."""

    script: list[Call]
    got: list[Received] = field(default_factory=list)
    port: int = 0


@contextlib.contextmanager
def grpc_peer(
    *script: Call, credentials: grpc.ServerCredentials | None = None, port: int = 0
) -> Iterator[GrpcPeer]:
    """Serve OTLP/gRPC on loopback."""
    peer = GrpcPeer(list(script))

    def export(message: bytes, context: grpc.ServicerContext) -> bytes:
        metadata: Any = context.invocation_metadata()
        peer.got.append(Received({name: str(value) for name, value in metadata}, message))
        call = peer.script.pop(0) if peer.script else Call()
        if call.code is not grpc.StatusCode.OK:
            context.set_trailing_metadata(tuple(call.trailers))
            context.abort(call.code, call.details)
        return call.body

    handler = grpc.unary_unary_rpc_method_handler(
        export, request_deserializer=bytes, response_serializer=bytes
    )
    name = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {"Export": handler}),)
    )
    address = f"127.0.0.1:{port}"
    if credentials is None:
        peer.port = server.add_insecure_port(address)
    else:
        peer.port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield peer
    finally:
        server.stop(None).wait()
