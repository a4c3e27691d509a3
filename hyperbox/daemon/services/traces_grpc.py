"""Traces over gRPC, in a thread and an event loop of its own: List, Get, Stream (traces.proto).

gRPC's servers accept by themselves, so addresses are bound here and not with the daemon's others;
the rules for them are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from starlette.exceptions import HTTPException

from hyperbox.daemon.listeners import Address, ListenError, may_listen, unix_place
from hyperbox.daemon.logs import fields
from hyperbox.daemon.service import ServiceState, Status
from hyperbox.daemon.services import traces_messages as messages
from hyperbox.daemon.services.traces_request import (
    MOST_SPANS,
    cursor_from,
    number_of,
    query_of,
    trace_id_of,
)
from hyperbox.daemon.services.traces_stream import Readers
from hyperbox.observability.otlp_protobuf import encode
from hyperbox.observability.span_query import Query
from hyperbox.observability.span_store import Cursor, SpanStore

__all__ = ["GrpcTraces"]

_LOG = logging.getLogger(__name__)
_START_S = 10.0
_GRACE_S = 0.2  # for answers under way at the end
_OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 64 << 10))

Context = aio.ServicerContext[Any, Any]
T = TypeVar("T")


class GrpcTraces:
    """Serves a store from `start` to `stop`.

    Parameters
    ----------
    places
        Addresses, or paths of unix sockets.
    remote
        Whether addresses may be such that other machines reach.
    status
        How the service is; asked at each call.
    """

    def __init__(
        self,
        places: Sequence[Address | Path],
        *,
        store: SpanStore,
        readers: Readers,
        status: Callable[[], Status],
        remote: bool = False,
    ) -> None:
        self._places, self._remote = places, remote
        self._store, self._readers, self._status = store, readers, status
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._over: asyncio.Event
        self.ports: list[int] = []
        """Of the addresses, once it has started."""

    def start(self) -> None:
        """Bind and serve.

        Raises
        ------
        ConfigError
            If an address can be reached from elsewhere and that is not allowed.
        ListenError
            If one is taken.
        """
        for place in self._places:
            if isinstance(place, Address):
                may_listen(place, remote=self._remote)
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._run(started),), name="grpc"
        )
        self._thread.start()
        started.result(_START_S)

    def stop(self) -> None:
        """End all calls; harmless if it has not started."""
        if self._thread is None:
            return
        with contextlib.suppress(RuntimeError):  # it could not start, and the loop has ended
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()
        self._thread = None

    async def _run(self, started: Future[None]) -> None:
        self._over = asyncio.Event()
        try:
            with contextlib.ExitStack() as stack:
                server = aio.server(options=_OPTIONS)
                checks = _Health(self._status)
                self._register(server, checks)
                for place in self._places:
                    self.ports.append(_bound(server, place, stack))
                await server.start()
                started.set_result(None)
                await self._serve(checks)
                await server.stop(_GRACE_S)
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    def _register(self, server: aio.Server, checks: _Health) -> None:
        handlers = {
            "List": grpc.unary_unary_rpc_method_handler(
                self._list, messages.request_class("ListRequest").FromString, bytes
            ),
            "Get": grpc.unary_unary_rpc_method_handler(
                self._get, messages.request_class("GetRequest").FromString, bytes
            ),
            "Stream": grpc.unary_stream_rpc_method_handler(
                self._stream, messages.request_class("StreamRequest").FromString, bytes
            ),
        }
        generic = grpc.method_handlers_generic_handler(messages.SERVICE, handlers)
        server.add_generic_rpc_handlers((generic,))
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        named = (messages.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(named, server)

    async def _serve(self, checks: _Health) -> None:
        """Tell those who watch the health of changes, until it is over."""
        while not self._over.is_set():
            await checks.update()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), 1.0)

    async def _list(self, request: Any, context: Context) -> bytes:
        await self._check(context)
        limit = await _sensible(
            context, lambda: number_of("limit", str(request.limit or 100), 1, MOST_SPANS)
        )
        query = await _sensible(context, lambda: query_of(_texts(request.conditions)))
        before = await _cursor(context, "before", request.before)
        found = await asyncio.to_thread(self._store.search, query, limit, before)
        return messages.list_response(encode(found.spans), found.next)

    async def _get(self, request: Any, context: Context) -> bytes:
        await self._check(context)
        trace_id = await _sensible(context, lambda: trace_id_of(request.trace_id.hex()))
        query = Query(trace_id=trace_id)
        batches = await asyncio.to_thread(self._store.trace, trace_id)
        spans = [whole for batch in batches for whole in query.filtered(batch)]
        if not spans:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no span of this trace is kept")
        return encode(spans)

    async def _stream(self, request: Any, context: Context) -> AsyncIterator[bytes]:
        await self._check(context)
        query = await _sensible(context, lambda: query_of(_texts(request.conditions)))
        after = await _cursor(context, "after", request.after)
        if self._readers.full:
            said = f"{len(self._readers)} streams are open already"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, said)
        cursor = self._store.newest() if after is None else after
        async for message in self._readers.follow(cursor, query, messages.StreamMessages()):
            yield message

    async def _check(self, context: Context) -> None:
        status = self._status()
        if status.state is not ServiceState.RUNNING:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"no traces here: {status.why}")


class _Health(health.aio.HealthServicer):  # type: ignore[misc,name-defined]  # no stubs
    """Says how the service is when it is asked, and not how it was."""

    def __init__(self, status: Callable[[], Status]) -> None:
        super().__init__()
        self._status_of = status
        self._running: bool | None = None

    async def update(self) -> None:
        """Look at the service, and say so if it has changed."""
        running = self._status_of().state is ServiceState.RUNNING
        if running != self._running:
            self._running = running
            of = health_pb2.HealthCheckResponse
            for name in ("", messages.SERVICE):
                await self.set(name, of.SERVING if running else of.NOT_SERVING)

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        """Answer a check; see grpc.health.v1."""
        await self.update()
        return await super().Check(request, context)


def _bound(server: aio.Server, place: Address | Path, stack: contextlib.ExitStack) -> int:
    if isinstance(place, Address):
        where = str(place)
        port = _added(server, where, where)
        _LOG.info("listening", extra=fields(address=f"grpc://{place.host}:{port}"))
        return port
    with unix_place(place, stack):
        _added(server, f"unix:{place}", str(place))
    _LOG.info("listening", extra=fields(address=f"grpc+unix:{place}"))
    return 0


def _added(server: aio.Server, address: str, said: str) -> int:
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError(
            f"cannot listen on {said} for gRPC",
            hint="another program listens there; stop it, or give another --grpc",
        ) from error


def _texts(conditions: Any) -> dict[str, str]:
    """Return conditions as HTTP has them, so that one place knows what they may be."""
    found = {
        field.name: str(value)
        for field, value in conditions.ListFields()
        if field.name != "trace_id"
    }
    if conditions.trace_id:
        found["trace"] = conditions.trace_id.hex()
    return found


async def _cursor(context: Context, name: str, text: str) -> Cursor | None:
    return await _sensible(context, lambda: cursor_from(name, text)) if text else None


async def _sensible(context: Context, read: Callable[[], T]) -> T:
    """Return what is read of a request; end the call where it makes no sense."""
    try:
        return read()
    except HTTPException as refused:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refused.detail)
        raise
