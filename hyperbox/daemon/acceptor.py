"""Accepts connections, so many from each listener, and waits where the system has no more.

asyncio's own loop tries 128 times in a row to accept where no descriptor is left, logs each
failure and starts a timer for each that does the same (CPython 3.11, selector_events.py): 181
silent clients of a daemon with 64 descriptors wrote 59 MB of log in 17 s. Here one try a
second is made, and a line is logged once a minute.

Every listener has places of its own, so that clients of TCP cannot take those of the unix
socket; root has a few more on the unix socket, for when the others are taken.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hyperbox.daemon.logs import fields

__all__ = ["Acceptor", "Places", "affordable"]

_LOG = logging.getLogger(__name__)
_AGAIN_S = 1.0
_LOG_EVERY_S = 60.0
_ROOTS = 4
_OTHER_FILES = 24  # that services and libraries open now and then


@dataclass
class Places:
    """Connections of one kind of client: `served` at a time, as many again are asked to wait."""

    served: int
    taken: int = 0

    @property
    def full(self) -> bool:
        """Whether not even a refusal can be afforded."""
        return self.taken >= 2 * self.served

    @property
    def exceeded(self) -> bool:
        """Whether the last one that was taken is one too many to be served."""
        return self.taken > self.served


def affordable(wanted: int, listeners: int) -> int:
    """Return how many of the wanted connections a listener each may serve, at least one.

    Their refusals, root's places and everything else have to fit in ``RLIMIT_NOFILE``, too.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = len(list(Path("/proc/self/fd").iterdir())) + _OTHER_FILES + 2 * _ROOTS
    return max(1, min(wanted, (most - taken) // (2 * max(1, listeners))))


class Acceptor:
    """Makes a protocol for each connection of a listener, from `start` to `close`.

    Parameters
    ----------
    connection
        Makes the protocol of a connection in its places; it lets go of one place at its end.
    """

    def __init__(
        self,
        listener: socket.socket,
        connection: Callable[[Places], asyncio.Protocol],
        *,
        served: int,
    ) -> None:
        self._listener = listener
        self._connection = connection
        self._places = Places(served)
        self._roots = Places(_ROOTS)
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._logged_s = -_LOG_EVERY_S
        self._opening: set[asyncio.Task[object]] = set()

    def start(self) -> None:
        """Accept from now on."""
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Accept no more; connections stay."""
        self._loop.remove_reader(self._listener)
        if self._retry is not None:
            self._retry.cancel()

    def _accept(self) -> None:
        try:
            wire, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptor or no memory, as accept(2) lists them
            self._wait(error)
            return
        places = self._roots if self._places.full and _from_root(wire) else self._places
        if places.full:
            wire.close()
            return
        wire.setblocking(False)
        places.taken += 1
        opening: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: self._connection(places), wire)
        )
        self._opening.add(opening)
        opening.add_done_callback(lambda done: self._opened(done, places))

    def _opened(self, opening: asyncio.Task[object], places: Places) -> None:
        self._opening.discard(opening)
        if opening.cancelled() or opening.exception() is not None:
            places.taken -= 1  # the protocol never had a connection to lose

    def _wait(self, error: OSError) -> None:
        """Leave clients where they are, in the kernel's queue, for a while."""
        self.close()
        self._retry = self._loop.call_later(_AGAIN_S, self.start)
        if self._loop.time() - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = self._loop.time()
            _LOG.warning("cannot accept connections", extra=fields(why=error.strerror))


def _from_root(wire: socket.socket) -> bool:
    """Return whether root is at the other end of a unix socket, as unix(7) knows."""
    if wire.family != socket.AF_UNIX:
        return False
    layout = "iII"  # struct ucred: pid, uid, gid
    found = wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(layout))
    return bool(struct.unpack(layout, found)[1] == 0)
