"""The traces service: takes spans from a source, keeps, exports and serves them.

What a batch costs is paid once, in the source's thread: it is encoded there, and store, exporter
and streams share its bytes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from prometheus_client import Metric
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from hyperbox.daemon.logs import fields
from hyperbox.daemon.negotiation import preferred
from hyperbox.daemon.service import Endpoint, Parameter, ServiceState, Status
from hyperbox.daemon.services import traces_metrics
from hyperbox.daemon.services import traces_request as asked
from hyperbox.daemon.services.traces_stream import EventLines, JsonLines, Readers
from hyperbox.errors import HyperboxError, KernelFeatureMissing
from hyperbox.observability import otlp_json
from hyperbox.observability.batches import cut
from hyperbox.observability.exporter import Exporter, ExportReport
from hyperbox.observability.otlp_protobuf import encode
from hyperbox.observability.span_query import Query
from hyperbox.observability.span_store import STORE_BYTES, SpanStore
from hyperbox.observability.spans import ResourceSpans

__all__ = ["GrpcFace", "Sink", "SpanSource", "TracesService"]

_LOG = logging.getLogger(__name__)
_PROTO = Path(__file__).with_name("traces.proto")
_MOST_BATCHES = 4 << 20  # bytes of one answer of /traces/batches
_FLUSH_S = 0.2  # for what waits for a collector, when the daemon ends

Sink = Callable[[Sequence[ResourceSpans]], None]
"""Takes spans; from one thread at a time. It never waits."""


class SpanSource(Protocol):
    """Makes spans, for example the tracer."""

    def start(self, sink: Sink, followed: Callable[[], bool]) -> None:
        """Begin to make spans; `followed` says whether somebody waits for each as it comes.

        Raises
        ------
        KernelFeatureMissing
            If this machine or this user cannot do it.
        """

    def stop(self) -> None:
        """Make no more, after the last ones; harmless if it has not started."""

    def report(self) -> Mapping[str, object]:
        """Return what it says of itself as JSON values (mode, cost); from any thread."""

    def lost(self) -> Mapping[str, int]:
        """Return what it has lost since its start, by cause; from any thread."""

    def trouble(self) -> HyperboxError | None:
        """Return what has ended it, if anything has; from any thread."""


class GrpcFace(Protocol):
    """Serves traces over gRPC, whether there are any or not."""

    def start(self) -> None:
        """Begin to serve; raises HyperboxError if it cannot listen."""

    def stop(self) -> None:
        """End it; harmless if it has not started."""


class TracesService:
    """Serves spans below ``/traces``.

    Parameters
    ----------
    source
        Where spans come from; None if nobody wants any.
    store_bytes
        What is kept, in bytes.
    exporter
        Makes what exports all spans; None exports none.
    grpc
        Makes what serves the store over gRPC, of it, its readers, and how this service is; None
        serves HTTP only.
    """

    name = "traces"

    def __init__(
        self,
        source: SpanSource | None = None,
        *,
        store_bytes: int = STORE_BYTES,
        exporter: Callable[[], Exporter] | None = None,
        grpc: Callable[[SpanStore, Readers, Callable[[], Status]], GrpcFace] | None = None,
    ) -> None:
        self._source = source
        self._make_exporter = exporter
        self._exporter: Exporter | None = None
        self._store = SpanStore(store_bytes)
        self._readers = Readers(self._store)
        self._oversized = 0
        self._taking = threading.Lock()
        self._status = Status(ServiceState.STOPPED)
        self._grpc = None if grpc is None else grpc(self._store, self._readers, self.status)

    def start(self) -> None:
        """Begin to trace; see `Service.start`."""
        if self._grpc is not None:
            self._grpc.start()
        if self._source is None:
            self._status = Status(
                ServiceState.UNAVAILABLE, "tracing was not asked for", "hyperbox daemon --trace"
            )
            return
        if self._make_exporter is not None:
            self._exporter = self._make_exporter()
            self._exporter.start()
        try:
            self._source.start(self._take, lambda: len(self._readers) > 0)
        except KernelFeatureMissing as error:
            self._status = Status(ServiceState.UNAVAILABLE, error.message, error.hint)
            if self._grpc is None:
                raise
            # Whoever asks over gRPC is to hear the reason, and not that nobody listens.
            _LOG.warning("service unavailable", extra=fields(service=self.name, why=error.message))
            return
        self._status = Status.running()

    def stop(self) -> None:
        """End tracing; streams end, and what waits for a collector is sent if it goes quickly."""
        if self._source is not None:
            self._source.stop()
        self._readers.end()
        if self._grpc is not None:
            self._grpc.stop()
        if self._exporter is not None:
            report = self._exporter.close(_FLUSH_S)
            if report.dropped_at_end:
                _LOG.warning(
                    "spans were not exported",
                    extra=fields(service=self.name, spans=report.dropped_at_end),
                )
        if self._status.state is ServiceState.RUNNING:
            self._status = Status(ServiceState.STOPPED)

    def status(self) -> Status:
        """Say how it is; see `Service.status`."""
        trouble = self._source.trouble() if self._source is not None else None
        if trouble is not None and self._status.state is ServiceState.RUNNING:
            return Status(ServiceState.FAILED, trouble.message, trouble.hint)
        return self._status

    def metrics(self) -> Iterable[Metric]:
        """Return what was kept, exported and lost; see `Service.metrics`."""
        if self._status.state is not ServiceState.RUNNING:
            return ()
        return traces_metrics.families(
            self._store.report(),
            self._export_report(),
            self._lost(),
            readers=len(self._readers),
            dropped_readers=self._readers.dropped,
        )

    def endpoints(self) -> Sequence[Endpoint]:
        """Return the endpoints below ``/traces``; see `Service.endpoints`."""
        data = {asked.JSON: asked.TRACES_DATA, asked.PROTOBUF: {"type": "string"}}
        refused = "Without tracing the status is 503, with the reason."
        binary = {asked.PROTOBUF: {"type": "string", "description": "TracesData."}}
        streams = {asked.NDJSON: {"type": "string"}, asked.SSE: {"type": "string"}}
        wanted = Parameter(
            "limit_bytes",
            "How many bytes of batches to return at most; one batch at least.",
            {"type": "integer", "minimum": 1, "maximum": _MOST_BATCHES, "default": 1 << 20},
        )
        return [
            Endpoint(
                "/traces",
                "Spans that are kept and meet all conditions, the newest first.",
                self._search,
                {asked.JSON: asked.SPANS, asked.PROTOBUF: {"type": "string"}},
                description="A page may have fewer spans than `limit`, even none, and more to "
                "come: go on while there is a `next` (in protobuf's case the header "
                f"{asked.CURSOR_HEADER}). {refused}",
                parameters=[*asked.CONDITIONS, *asked.PAGE],
            ),
            Endpoint(
                "/traces/stream",
                "Spans as they come, without end.",
                self._stream,
                streams,
                description="Server-sent events (`spans`, `gap`, `dropped`, `end`), or a JSON "
                "object a line: TracesData with the `cursor` to resume after it, or one of the "
                "others. A reader that is more than 4 MiB behind is `dropped`; with its cursor "
                f"(or Last-Event-ID) it may come again, and a `gap` says what it missed. {refused}",
                parameters=[*asked.CONDITIONS, asked.AFTER],
            ),
            Endpoint(
                "/traces/batches",
                "Batches of spans after a cursor, the oldest that are kept without one.",
                self._batches,
                binary,
                description=f"{asked.CURSOR_HEADER} is the cursor to go on with, "
                f"{asked.MISSED_HEADER} the number of batches that are no longer kept, -1 if "
                f"the cursor is of an earlier daemon. {refused}",
                parameters=[asked.AFTER, wanted],
            ),
            Endpoint(
                "/traces.proto",
                "The service and messages of traces over gRPC, which --grpc serves.",
                _proto,
                {"text/plain": {"type": "string"}},
            ),
            Endpoint(
                "/traces/stats",
                "What is traced, kept, exported and lost.",
                self._stats,
                {asked.JSON: asked.STATS},
            ),
            Endpoint(
                "/traces/{trace_id}",
                "Everything that is kept of a trace: the life of a process.",
                self._trace,
                data,
                description=f"A trace that is not there is 404. {refused}",
                parameters=[asked.TRACE_ID],
            ),
        ]

    def _take(self, spans: Sequence[ResourceSpans]) -> None:
        batches, oversized = cut(spans)
        with self._taking:
            self._oversized += oversized
        self._store.add(batches)
        if self._exporter is not None:
            self._exporter.add(batches)

    async def _search(self, request: Request) -> Response:
        self._check()
        query, before = asked.query_of(request.query_params), asked.cursor_of(request, "before")
        limit = asked.number_of(
            "limit", request.query_params.get("limit", "100"), 1, asked.MOST_SPANS
        )
        found = await asyncio.to_thread(self._store.search, query, limit, before)
        then = None if found.next is None else str(found.next)
        if _accepted(request, (asked.JSON, asked.PROTOBUF)) == asked.PROTOBUF:
            headers = {} if then is None else {asked.CURSOR_HEADER: then}
            return _varied(encode(found.spans), asked.PROTOBUF, headers)
        body = otlp_json.encode(found.spans)[:-1] + b',"next":' + json.dumps(then).encode() + b"}"
        return _varied(body, asked.JSON)

    async def _trace(self, request: Request) -> Response:
        self._check()
        trace_id = asked.trace_id_of(request.path_params["trace_id"])
        body, media = await asyncio.to_thread(
            self._found, trace_id, _accepted(request, (asked.JSON, asked.PROTOBUF))
        )
        if not body:
            raise HTTPException(404, "no span of this trace is kept")
        return _varied(body, media)

    def _found(self, trace_id: bytes, media: str) -> tuple[bytes, str]:
        """Return what is kept of a trace, in a media type; nothing if nothing is."""
        batches = self._store.trace(trace_id)
        if not batches:
            return b"", media
        query = Query(trace_id=trace_id)
        spans = [whole for batch in batches for whole in query.filtered(batch)]
        return (otlp_json.encode if media == asked.JSON else encode)(spans), media

    async def _batches(self, request: Request) -> Response:
        self._check()
        after = asked.cursor_of(request, "after") or self._store.oldest()
        text = request.query_params.get("limit_bytes", str(1 << 20))
        page = self._store.after(after, asked.number_of("limit_bytes", text, 1, _MOST_BATCHES))
        headers = {asked.CURSOR_HEADER: str(page.cursor), asked.MISSED_HEADER: str(page.missed)}
        body = b"".join(batch.data for batch in page.batches)
        return Response(body, headers=headers, media_type=asked.PROTOBUF)

    async def _stream(self, request: Request) -> Response:
        self._check()
        query, after = asked.query_of(request.query_params), asked.cursor_of(request, "after")
        media = _accepted(request, (asked.NDJSON, asked.SSE))
        if media == asked.SSE and (last := request.headers.get("last-event-id")) is not None:
            after = asked.cursor_from("Last-Event-ID", last)
        if request.method == "HEAD":
            return _varied(b"", media)
        if self._readers.full:
            raise HTTPException(503, f"{len(self._readers)} streams are open already")
        lines = EventLines() if media == asked.SSE else JsonLines()
        cursor = self._store.newest() if after is None else after
        return StreamingResponse(
            self._readers.follow(cursor, query, lines), media_type=media, headers={"vary": "accept"}
        )

    async def _stats(self, _request: Request) -> Response:
        status = self.status()
        if status.state is not ServiceState.RUNNING or self._source is None:
            said = {name: text for name, text in status.as_json().items() if name != "state"}
            return JSONResponse({"available": False, **said})
        export = self._export_report()
        return JSONResponse(
            {
                "available": True,
                "source": dict(self._source.report()),
                "store": asdict(self._store.report()),
                "export": None if export is None else asdict(export),
                "lost": dict(self._lost()),
                "readers": len(self._readers),
                "dropped_readers": self._readers.dropped,
            }
        )

    def _check(self) -> None:
        """Refuse with 503 and the reason where nothing is traced."""
        status = self.status()
        if status.state is not ServiceState.RUNNING:
            raise HTTPException(503, f"no traces here: {status.why}")

    def _export_report(self) -> ExportReport | None:
        return None if self._exporter is None else self._exporter.report()

    def _lost(self) -> Mapping[str, int]:
        """Return what was lost on the way to a reader or collector, by cause."""
        lost = dict(self._source.lost()) if self._source is not None else {}
        if self._oversized:
            lost["too_large"] = self._oversized
        export = self._export_report()
        if export is not None:
            lost |= {
                "export_queue_full": export.dropped_full,
                "export_rejected": export.rejected,
                "export_refused": export.refused,
                "export_ended": export.dropped_at_end,
            }
        return lost


async def _proto(_request: Request) -> Response:
    return Response(_PROTO.read_bytes(), media_type="text/plain")


def _accepted(request: Request, offered: Sequence[str]) -> str:
    return preferred(", ".join(request.headers.getlist("accept")), offered)


def _varied(body: bytes, media: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, headers={"vary": "accept", **(headers or {})}, media_type=media)
