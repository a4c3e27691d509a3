"""The conversation with a guest's agent: frames there and back over one socket.

One command's frames may come while another is waited for; they wait their turn.
"""

from __future__ import annotations

import itertools
import select
import socket
import time
from collections.abc import Sequence

from hyperbox.harness.lab.protocol import Frame, FrameDecoder, FrameType, ProtocolError

__all__ = ["Channel", "ChannelBroken", "ChannelDamaged"]

_SLICE_S = 5.0


class ChannelBroken(Exception):
    """Nobody is at the other end, or it takes nothing."""


class ChannelDamaged(Exception):
    """What arrives is not a frame."""


class Channel:
    """The harness's end.

    Parameters
    ----------
    connection
        A connected socket; it belongs to the channel from now on.
    patience
        Seconds in which the other end must take what is sent.
    """

    def __init__(self, connection: socket.socket, patience: float) -> None:
        self._connection = connection
        self._connection.settimeout(patience)
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []
        self._requests = itertools.count(1)

    def close(self) -> None:
        """Hang up; harmless when repeated."""
        self._connection.close()

    def fileno(self) -> int:
        """Return the descriptor that select(2) can wait on for `arrived`."""
        return self._connection.fileno()

    def number(self) -> int:
        """Return the number of a new request."""
        return next(self._requests)

    def send(self, kind: FrameType, payload: bytes = b"", request: int | None = None) -> int:
        """Send a frame about a request, or a new one, and give its number; or ChannelBroken."""
        number = self.number() if request is None else request
        try:
            self._connection.sendall(Frame(kind, number, payload).encode())
        except OSError as error:
            raise ChannelBroken(f"the agent's channel broke: {error}") from error
        return number

    def readable(self, seconds: float) -> bool:
        """Whether something arrives within so many seconds, the end of it included."""
        return bool(select.select([self._connection], [], [], seconds)[0])

    def arrived(self) -> Sequence[Frame]:
        """Return the frames that are there; blocks unless `fileno` is readable."""
        if not self._frames:
            self._read()
        frames, self._frames = self._frames, []
        return frames

    def next(self, deadline: float) -> Frame:
        """Return the next frame.

        Raises
        ------
        TimeoutError
            If none has come by `deadline`, of the monotonic clock.
        ChannelBroken, ChannelDamaged
            As their names say.
        """
        while not self._frames:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            if self.readable(min(remaining, _SLICE_S)):
                self._read()
        return self._frames.pop(0)

    def answer(self, request: int, kind: FrameType | None, deadline: float) -> Frame:
        """Return the next frame of a request, of one kind or any; raises what `next` does."""
        others: list[Frame] = []
        try:
            while True:
                frame = self.next(deadline)
                if frame.id == request and kind in (None, frame.type):
                    return frame
                others.append(frame)
        finally:
            self._frames[:0] = others

    def _read(self) -> None:
        try:
            data = self._connection.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            raise ChannelBroken("the machine went away")
        try:
            self._frames.extend(self._decoder.feed(data))
        except ProtocolError as error:
            raise ChannelDamaged(f"the agent's channel is damaged: {error}") from error
