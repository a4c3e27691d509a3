"""Runs a group behind a web server until a signal ends it.

uvicorn speaks HTTP; what differs from its own server: it sleeps until something happens
instead of waking ten times a second, and signals stop the services first, so that everything
is put back even if clients hang on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Generator, Iterator, Sequence
from types import FrameType

import uvicorn

from hyperbox.daemon.acceptor import Acceptor, Places, affordable
from hyperbox.daemon.application import application
from hyperbox.daemon.connections import Connection, ConnectionLimits
from hyperbox.daemon.logs import fields
from hyperbox.daemon.notify import notify
from hyperbox.daemon.service_group import ServiceGroup

__all__ = ["serve"]

_LOG = logging.getLogger(__name__)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DRAIN_S = 0.3  # for answers under way; together with the services less than a second


def serve(
    group: ServiceGroup, listeners: Sequence[socket.socket], limits: ConnectionLimits | None = None
) -> bool:
    """Serve an entered group on bound sockets until SIGINT, SIGTERM or SIGHUP.

    Return whether it was SIGINT, that is, whether somebody interrupted it. Must be called from
    the main thread.

    Raises
    ------
    HyperboxError
        If a service could not put things back.
    """
    server = _Server(group, listeners, limits or ConnectionLimits())
    with _signals(server):
        asyncio.run(server.serve(list(listeners)))
    return server.received == signal.SIGINT


def _config(group: ServiceGroup, limits: ConnectionLimits) -> uvicorn.Config:
    return uvicorn.Config(
        application(group, longest_head=limits.head, longest_body=limits.body),
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,  # the application's edge dates answers: no clock has to tick
        timeout_keep_alive=limits.keep_alive_s,
        h11_max_incomplete_event_size=limits.head,
    )


class _Server(uvicorn.Server):
    def __init__(
        self, group: ServiceGroup, listeners: Sequence[socket.socket], limits: ConnectionLimits
    ) -> None:
        super().__init__(_config(group, limits))
        self.group = group
        self.limits = limits
        self.received = 0
        self._acceptors: list[Acceptor] = []
        self._names = [_name(listener) for listener in listeners]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    def end(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: the first one ends the daemon, the others change nothing.

        The next signal may come while this one is handled, in the middle of any line: nothing
        here may take a lock, as an event of `threading` does.
        """
        self.received = self.received or number
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                self._loop.call_soon_threadsafe(self._wake.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept from every listener, with places of its own."""
        served = affordable(self.limits.connections, len(sockets or ()))
        for listener in sockets or ():
            acceptor = Acceptor(listener, self._connection, served=served)
            acceptor.start()
            self._acceptors.append(acceptor)
        self.started = True

    def _connection(self, places: Places) -> Connection:
        return Connection(self.config, self.server_state, self.limits, places)

    async def main_loop(self) -> None:
        """Sleep until a signal, then stop the services; uvicorn drains connections after."""
        self._loop = asyncio.get_running_loop()
        for name in self._names:
            _LOG.info("listening", extra=fields(address=name))
        notify("READY=1", f"STATUS=serving {', '.join(self._names)}")
        if not self.received:
            await self._wake.wait()
        _LOG.info("stopping", extra=fields(signal=signal.Signals(self.received).name))
        notify("STOPPING=1")
        await asyncio.to_thread(self.group.stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers under way be finished, shortly; then drop what is left."""
        state = self.server_state
        for acceptor in self._acceptors:
            acceptor.close()
        for connection in list(state.connections):
            connection.shutdown()
        deadline = asyncio.get_running_loop().time() + _DRAIN_S
        while state.connections or state.tasks:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.01)
        for task in list(state.tasks):
            task.cancel()
        for connection in list(state.connections):
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to `serve`: uvicorn would raise them again at the end."""
        yield


@contextlib.contextmanager
def _signals(server: _Server) -> Iterator[None]:
    handled = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, server.end) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _name(listener: socket.socket) -> str:
    found = listener.getsockname()
    if isinstance(found, str):
        return f"unix:{found}"
    host, port = found[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
