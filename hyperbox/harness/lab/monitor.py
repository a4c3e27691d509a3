"""QEMU's monitor: commands that are answered in time or not at all, and what it says by itself.

Follows QEMU's docs/interop/qmp-spec, over the library qemu.qmp. A monitor that was late once is
not asked again: the waits of everybody who wants to know what happened would add up.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

__all__ = ["Monitor", "MonitorError"]

_LAST_WORDS_S = 0.2
_GOODBYE_S = 10.0

_T = TypeVar("_T")


class MonitorError(Exception):
    """QEMU refuses a command, is gone, or does not answer."""


class Monitor:
    """The harness's end of a monitor.

    Parameters
    ----------
    connection
        A connected socket; it belongs to the monitor from now on.
    limit
        Seconds for an answer.
    beat
        Seconds after which `hopeless`, if there is one, is asked whether to wait on.
    """

    def __init__(
        self,
        connection: socket.socket,
        limit: float,
        *,
        beat: float = 10.0,
        hopeless: Callable[[], object] | None = None,
    ) -> None:
        self._connection = connection
        self._limit = limit
        self._beat = beat
        self._hopeless = hopeless
        from qemu import qmp  # noqa: PLC0415 - `hyperbox doctor` works without the harness's packages

        self._client = qmp.QMPClient()
        self._failures = (qmp.QMPError, OSError, EOFError)
        self._loop = asyncio.new_event_loop()
        self.mute = False
        """Whether an answer did not come in time."""

    def connect(self, limit: float) -> None:
        """Wait for QEMU's greeting; MonitorError if it does not come within `limit` seconds."""
        self._run(lambda: self._client.connect(self._connection), limit)

    def command(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        *,
        limit: float | None = None,
    ) -> Any:
        """Run a command and return its result.

        Raises
        ------
        MonitorError
            If QEMU refuses it, is gone or does not answer within `limit` seconds, or a beat
            if that is hopeless; at once if it has been mute before.
        """
        limit = self._limit if limit is None else limit
        return self._run(lambda: self._client.execute(name, arguments), limit)

    def last_words(self) -> list[dict[str, Any]]:
        """Return the events that QEMU has sent and that are still on their way, oldest first.

        A shutdown is its last word, which is waited for a little.
        """
        received: list[dict[str, Any]] = []
        try:
            while not any(event["event"] == "SHUTDOWN" for event in received):
                event = asyncio.wait_for(self._client.events.get(), _LAST_WORDS_S)
                received.append(dict(self._loop.run_until_complete(event)))
        except TimeoutError:
            pass
        return received

    def forget_events(self) -> None:
        """Forget the events that QEMU has sent so far."""
        self._client.events.clear()

    def close(self) -> None:
        """End the conversation; harmless when repeated."""
        if self._loop.is_closed():
            return
        try:
            goodbye = asyncio.wait_for(self._client.disconnect(), _GOODBYE_S)
            self._loop.run_until_complete(goodbye)
        except self._failures:
            pass  # QEMU was the first to leave
        finally:
            self._loop.close()
            self._connection.close()

    def _run(self, ask: Callable[[], Coroutine[Any, Any, _T]], limit: float) -> _T:
        if self.mute:
            raise MonitorError("the monitor has not answered before")
        try:
            return self._loop.run_until_complete(self._answer(ask(), limit))
        except TimeoutError as error:
            self.mute = True
            raise MonitorError(str(error)) from error
        except self._failures as error:
            raise MonitorError(str(error)) from error

    async def _answer(self, asked: Coroutine[Any, Any, _T], limit: float) -> _T:
        task = asyncio.ensure_future(asked)
        left, waited = limit, 0.0
        while left > 0:
            slice_s = min(left, self._beat) if self._hopeless else left
            if (await asyncio.wait([task], timeout=slice_s))[0]:
                return task.result()
            left, waited = left - slice_s, waited + slice_s
            if self._hopeless and self._hopeless():
                break
        task.cancel()
        await asyncio.wait([task])
        raise TimeoutError(f"no answer within {waited:g} s")
