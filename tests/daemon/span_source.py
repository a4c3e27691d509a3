"""A daemon whose traces are of this very process: a span for each of its reads of a file.

``python3 -m tests.daemon.span_source [COLLECTOR [SOCKET]]`` serves them, over gRPC too if there
is a socket; lines on standard input are
orders: ``N BYTES`` makes N reads, with a text of so many bytes in each span.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hyperbox.daemon.listeners import Address, tcp_listener
from hyperbox.daemon.logs import configure
from hyperbox.daemon.server import serve
from hyperbox.daemon.service import Status
from hyperbox.daemon.service_group import ServiceGroup
from hyperbox.daemon.services.traces import GrpcFace, Sink, TracesService
from hyperbox.daemon.services.traces_grpc import GrpcTraces
from hyperbox.daemon.services.traces_stream import Readers
from hyperbox.errors import HyperboxError
from hyperbox.observability.export_http import HttpTransport
from hyperbox.observability.export_target import target
from hyperbox.observability.exporter import Exporter
from hyperbox.observability.span_store import SpanStore
from hyperbox.observability.spans import ResourceSpans, Span, SpanResource

TRACE = bytes(range(16))


class ReadingSource:
    """Reads, and makes a span of each read."""

    def __init__(self) -> None:
        self._made = 0

    def start(self, sink: Sink, followed: Callable[[], bool]) -> None:
        self._sink = sink
        threading.Thread(target=self._obey, daemon=True).start()

    def stop(self) -> None:
        """There is nothing to put back."""

    def report(self) -> Mapping[str, object]:
        return {"mode": "every", "made": self._made}

    def lost(self) -> Mapping[str, int]:
        return {"ring_full": 2}

    def trouble(self) -> HyperboxError | None:
        return None

    def _obey(self) -> None:
        for line in sys.stdin:
            count, size = map(int, line.split())
            resource = SpanResource({"process.pid": os.getpid(), "container.id": "abcdef012345"})
            self._sink([ResourceSpans(resource, [self._read(size) for _ in range(count)])])

    def _read(self, size: int) -> Span:
        start = time.time_ns()
        self._made += 1
        error = ""
        try:
            os.pread(os.open("/proc/self/stat", os.O_RDONLY) if self._made == 1 else -1, 10, 0)
        except OSError:
            error = "EBADF"
        attributes = {"hyperbox.syscall.name": "pread64", "hyperbox.text": "x" * size}
        if error:
            attributes["error.type"] = error
        span_id = self._made.to_bytes(8, "big")
        return Span(
            TRACE, span_id, "pread64", start, time.time_ns(), attributes=attributes, error=error
        )


def main() -> None:
    """Serve on a port of the kernel's choice."""
    configure()
    exporter = None
    if sys.argv[1:] and sys.argv[1] != "none":
        to = target({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, sys.argv[1])

        def exporter() -> Exporter:
            return Exporter(HttpTransport(to))

    places: list[Address | Path] = [Address("127.0.0.1", 0), *map(Path, sys.argv[2:])]

    def grpc(store: SpanStore, readers: Readers, status: Callable[[], Status]) -> GrpcFace:
        return GrpcTraces(places, store=store, readers=readers, status=status)

    service = TracesService(ReadingSource(), exporter=exporter, grpc=grpc if places[1:] else None)
    with tcp_listener(Address("127.0.0.1", 0)) as listener, ServiceGroup([service]) as group:
        serve(group, [listener])


if __name__ == "__main__":
    main()
