"""Frames between the harness and the agent in a guest; both sides import this module.

A frame is a header, little-endian u32 payload length, u8 type, u32 request id, then the
payload. Standard library only: the agent runs it too. Pure: no input or output here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from hyperbox.foreign import parse_json

__all__ = [
    "CHUNK",
    "INPUT_WINDOW",
    "MAX_PAYLOAD",
    "PORT_NAME",
    "PROJECT_DIRECTORY",
    "Frame",
    "FrameDecoder",
    "FrameType",
    "ProtocolError",
]

PORT_NAME = "hyperbox.agent"
"""Name of the virtio-serial port."""
PROJECT_DIRECTORY = "/opt/hyperbox"
"""Where guests see the project, and where commands run."""
MAX_PAYLOAD = 16 << 20
"""Largest payload in bytes; a longer one means that the stream is damaged.

Arguments may have 2 MiB with the usual stack limit (execve(2)), six times as much in JSON.
"""
CHUNK = 256 << 10
"""Payload size of file transfers and output, in bytes."""
INPUT_WINDOW = 64 << 10
"""Bytes of standard input that may be on their way: the agent reports what a command took."""
_HEADER = struct.Struct("<IBI")


class ProtocolError(Exception):
    """The byte stream is not a sequence of frames."""


class FrameType(IntEnum):
    """Types of frames; the comment says who sends it and what the payload is."""

    READY = 1  # agent: JSON {release, monotonic_ns}
    PING = 2  # both: echoed payload; the agent answers with its CLOCK_MONOTONIC, u64 ns
    EXECUTE = 3  # harness: JSON {argv, environment, and what `Agent` knows}
    STDOUT = 4  # agent: bytes
    STDERR = 5  # agent: bytes
    EXIT = 6  # agent: JSON {status, elapsed_ns, leapt} with {unended} if what it started does not
    # end, or {error, errno} when it could not start
    KILL = 7  # harness: signal the process group of request id; u8 signal, SIGKILL if empty
    PUT = 8  # harness: path; followed by DATA and END of the same id
    GET = 9  # harness: path; answered by DATA and END
    DATA = 10  # both: bytes of a file
    END = 11  # both: end of file; payload is an error message, or empty
    STDIN = 12  # harness: bytes, empty: end of input, or hang-up of a terminal; agent: u32 taken
    WINDOW = 13  # harness: u16 rows, u16 columns of the terminal of request id


_TYPES = frozenset(FrameType)


@dataclass(frozen=True)
class Frame:
    """One message."""

    type: FrameType
    id: int
    payload: bytes = b""

    def encode(self) -> bytes:
        """Return the bytes on the wire."""
        if len(self.payload) > MAX_PAYLOAD:
            raise ProtocolError(f"payload of {len(self.payload)} bytes is over {MAX_PAYLOAD}")
        return _HEADER.pack(len(self.payload), self.type, self.id) + self.payload

    def json(self) -> dict[str, Any]:
        """Return the payload decoded from JSON; `ProtocolError` if it is not an object."""
        try:
            value = parse_json(self.payload.decode())
        except ValueError as error:
            raise ProtocolError(f"{self.type.name} carries no JSON: {error}") from error
        if not isinstance(value, dict):
            raise ProtocolError(f"{self.type.name} carries no JSON object")
        return value


class FrameDecoder:
    """Cuts a byte stream, fed in any pieces, into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Return the frames that `data` completes.

        Raises
        ------
        ProtocolError
            If a header is impossible: unknown type or a payload over `MAX_PAYLOAD`.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            length, kind, request = _HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD or kind not in _TYPES:
                raise ProtocolError(f"impossible frame header: {length} bytes of type {kind}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield Frame(FrameType(kind), request, payload)
