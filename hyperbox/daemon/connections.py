"""The web server's connections, with limits that keep a slow or hostile client from holding one.

uvicorn by itself waits for ever for the rest of a request, and for ever for a client that
does not read its answer. Here a whole request has to arrive within
`ConnectionLimits.receive_s`, and the client has to read something every
`ConnectionLimits.send_s`; then the connection is dropped. A request on a connection beyond those
that are served is answered by 503, and what is not
HTTP by 400, in the one shape of refusals.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import h11
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from hyperbox.daemon import problems
from hyperbox.daemon.acceptor import Places

__all__ = ["Connection", "ConnectionLimits"]


@dataclass(frozen=True)
class ConnectionLimits:
    """What one client may cost. Times are seconds, sizes bytes.

    `keep_alive_s` is how long a connection may idle between requests, `head` how long a
    request's line and headers may be, `body` its body (no endpoint wants one). `connections`
    are served at a time for each listener, fewer if there are too few descriptors; as many
    again are refused with 503, and others are dropped.
    """

    receive_s: float = 10.0
    send_s: float = 10.0
    keep_alive_s: int = 15
    head: int = 16 * 1024
    body: int = 64 * 1024
    connections: int = 256


class Connection(H11Protocol):
    """One client's connection, in its place of its listener's `Places`."""

    _receiving: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        limits: ConnectionLimits,
        places: Places,
    ) -> None:
        super().__init__(config, server_state, app_state={})
        self.limits = limits
        self.places = places

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the place; refuse requests if it is one too many."""
        super().connection_made(cast(asyncio.Transport, _Lingering(transport, self)))
        # Any byte that the client has not taken counts, not only those above 64 KiB.
        transport.set_write_buffer_limits(high=0)
        if self.places.exceeded:
            self.app = _too_many
        self._watch_receiving()

    def data_received(self, data: bytes) -> None:
        """Go on with the request; bytes after a refusal are thrown away."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch_receiving()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks and let go of the place."""
        self._receiving = _stopped(self._receiving)
        self._sending = _stopped(self._sending)
        self.places.taken -= 1
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Go on with a request that came together with the last one."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._watch_receiving()

    def pause_writing(self) -> None:
        """Start the clock of a client that does not read."""
        super().pause_writing()
        if self._sending is None:
            self._sending = self.loop.call_later(self.limits.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop it: the client has read."""
        self._sending = _stopped(self._sending)
        super().resume_writing()

    def shutdown(self) -> None:
        """End at once or after the answer under way."""
        if not self.transport.is_closing():
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Say in our own shape that this was not HTTP, unless an answer is under way.

        Called by uvicorn while it handles h11's exception, which knows the status.
        """
        if self.cycle is not None:
            self.cycle.disconnected = True  # its answer, if it has not come yet, comes too late
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        body = problems.body(status, problems.DETAILS[status])
        headers = [
            ("content-type", problems.MEDIA_TYPE),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        reason = HTTPStatus(status).phrase.encode()
        parts = (
            h11.Response(status_code=status, headers=headers, reason=reason),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        self.transport.write(b"".join(self.conn.send(part) or b"" for part in parts))
        self.transport.close()

    def linger(self) -> None:
        """End the connection in a while, whatever the client does."""
        _stopped(self._receiving)
        self._receiving = self.loop.call_later(self.limits.receive_s, self.transport.abort)

    def _watch_receiving(self) -> None:
        """Run the clock from the first moment until a request is whole; bytes do not wind it."""
        if self.transport.is_closing():
            return
        receiving = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        between = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if between or not receiving:
            self._receiving = _stopped(self._receiving)
        if receiving and self._receiving is None:
            self._receiving = self.loop.call_later(self.limits.receive_s, self.transport.abort)


class _Lingering:
    """A transport that lets a client that is still sending read its refusal.

    Closing a socket with bytes that nobody read resets the connection, and the client may
    lose the answer (RFC 9112, 9.6): our side is shut down, and what comes is thrown away for
    at most `ConnectionLimits.receive_s`.
    """

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection
        self._lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def close(self) -> None:
        sending = self._connection.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        if not sending or self.is_closing():
            self._transport.close()
            return
        self._lingers = True
        self._connection.linger()
        self._transport.write_eof()
        self._transport.resume_reading()


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    refusal = problems.response(503, "too many connections", {"connection": "close"})
    await refusal(scope, receive, send)


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a clock that may not run; return what stands for one that does not."""
    if timer is not None:
        timer.cancel()
    return None
