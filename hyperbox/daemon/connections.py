"""The web server's connections, with limits that keep a slow or hostile client from holding one.

uvicorn by itself waits for ever for the rest of a request, and for ever for a client that
does not read its answer. Here a whole request has to arrive within `Limits.receive_s`, and
the client has to read something every `Limits.send_s`; then the connection is dropped.
Beyond `Limits.connections` a request is answered by 503, and what is no HTTP by 400, in
the one shape of refusals. Beyond twice as many a connection is dropped at once: those that
say nothing would use up the file descriptors, and asyncio takes that badly.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from hyperbox.daemon import problems

__all__ = ["Limits", "connection_class"]


@dataclass(frozen=True)
class Limits:
    """What one client may cost. Times are seconds, sizes bytes.

    `keep_alive_s` is how long a connection may idle between requests, `head` how long a
    request's line and headers may be, `body` its body (no endpoint wants one).
    """

    receive_s: float = 10.0
    send_s: float = 10.0
    keep_alive_s: int = 15
    head: int = 16 * 1024
    body: int = 64 * 1024
    connections: int = 256


def connection_class(limits: Limits) -> type[H11Protocol]:
    """Return the class that uvicorn is to make connections of."""

    class LimitedConnection(_Connection):
        pass

    LimitedConnection.limits = limits
    return LimitedConnection


class _Connection(H11Protocol):
    limits: Limits
    _receiving: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > 2 * self.limits.connections:
            transport.abort()
            return
        # Any byte that the client has not taken counts, not only those above 64 KiB.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self.limits.connections:
            self.app = _too_many
        self._watch_receiving()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_receiving()

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiving = _stopped(self._receiving)
        self._sending = _stopped(self._sending)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:  # of a request that came with the last one
            self._watch_receiving()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._sending is None:
            self._sending = self.loop.call_later(self.limits.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._sending = _stopped(self._sending)
        super().resume_writing()

    def shutdown(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Say in our own shape that this was no HTTP, unless an answer is under way."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body = problems.body(400, "this is not a request of HTTP/1.1, or it is too long")
        headers = [
            ("content-type", problems.MEDIA_TYPE),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        parts = (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        self.transport.write(b"".join(self.conn.send(part) or b"" for part in parts))
        self.transport.close()

    def _watch_receiving(self) -> None:
        """Run the clock from the first moment until a request is whole; bytes do not wind it."""
        receiving = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        between = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if between or not receiving:
            self._receiving = _stopped(self._receiving)
        if receiving and self._receiving is None:
            self._receiving = self.loop.call_later(self.limits.receive_s, self.transport.abort)


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    refusal = problems.response(503, "too many connections", {"connection": "close"})
    await refusal(scope, receive, send)


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a clock that may not run; gives what stands for one that does not."""
    if timer is not None:
        timer.cancel()
    return None
