"""The house: starts and stops rooms, and knows how each is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from hyperbox.daemon.logs import fields
from hyperbox.daemon.room import Room, State, Status
from hyperbox.errors import HyperboxError, KernelFeatureMissing

__all__ = ["House"]

_LOG = logging.getLogger(__name__)


class House:
    """Rooms with one life: all start, in order, before anything is served; all stop, in reverse.

    A room that this machine cannot have is unavailable with its reason, and the rest goes
    on. Use it as a context manager.

    Raises
    ------
    HyperboxError
        On entering, if a room cannot start; the ones before it have been stopped.
    """

    def __init__(self, rooms: Sequence[Room]) -> None:
        self.rooms = tuple(rooms)
        self.started_unix_s = time.time()
        self._open: list[Room] = []
        self._stopping = threading.Lock()

    def __enter__(self) -> House:
        try:
            for room in self.rooms:
                self._start(room)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop every room that was started, even if one of them fails; harmless twice.

        Raises
        ------
        HyperboxError
            The first failure, after all have been stopped.
        """
        failures: list[HyperboxError] = []
        with self._stopping:
            while self._open:
                room = self._open.pop()
                try:
                    room.stop()
                except HyperboxError as error:
                    failures.append(error)
                    _LOG.error("room did not stop", extra=fields(room=room.name, why=error.message))
                else:
                    _LOG.info("room stopped", extra=fields(room=room.name))
        if failures:
            raise failures[0]

    def statuses(self) -> dict[str, Status]:
        """Say how every room is, by name."""
        return {room.name: room.status() for room in self.rooms}

    @property
    def ready(self) -> bool:
        """Whether everything that this machine can do runs."""
        healthy = (State.RUNNING, State.UNAVAILABLE)
        return all(status.state in healthy for status in self.statuses().values())

    def _start(self, room: Room) -> None:
        # Before it starts: one that fails half-way is stopped like the others.
        self._open.append(room)
        try:
            room.start()
        except KernelFeatureMissing as error:
            self._open.remove(room)
            room.stop()
            _LOG.warning("room unavailable", extra=fields(room=room.name, why=error.message))
        else:
            _LOG.info("room started", extra=fields(room=room.name))
