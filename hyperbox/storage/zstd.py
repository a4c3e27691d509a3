"""zstd through libzstd's own library: single frames of known length, and streams of many.

Every Debian system has libzstd.so.1 (dpkg needs it), also a guest with a bare python. The
functions are those of the stable part of zstd.h (1.4.0); skippable frames (RFC 8878, 3.1.2) are
passed over.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import BinaryIO

from hyperbox.errors import MissingDependency, WorkloadError

__all__ = ["BadFrame", "ZstdStream", "compress", "decompress"]

_PIECE = 128 << 10  # bytes: ZSTD_DStreamInSize() and ZSTD_DStreamOutSize() are about this


class BadFrame(WorkloadError):
    """Bytes that are not the zstd frame they should be."""


def compress(data: bytes, level: int = 3) -> bytes:
    """Return data as one zstd frame, which says how long the data is."""
    library = _libzstd()
    room = ctypes.create_string_buffer(library.ZSTD_compressBound(len(data)))
    count = library.ZSTD_compress(room, len(room), data, len(data), level)
    if library.ZSTD_isError(count):
        raise BadFrame(f"zstd: {library.ZSTD_getErrorName(count).decode()}")
    return room.raw[:count]


def decompress(frame: bytes, length: int) -> bytes:
    """Return the data of a zstd frame, of known length.

    Frames that decoders pass over may follow; another one with data may not.

    Raises
    ------
    BadFrame
        If it is none, or does not have exactly so many bytes.
    """
    library = _libzstd()
    room = ctypes.create_string_buffer(length or 1)
    # Two frames in a row would be decompressed as one; the first alone has to have it all.
    first = library.ZSTD_findFrameCompressedSize(frame, len(frame))
    if library.ZSTD_isError(first):
        raise BadFrame(f"zstd: {library.ZSTD_getErrorName(first).decode()}")
    count = library.ZSTD_decompress(room, length, frame, first)
    if library.ZSTD_isError(count):
        raise BadFrame(f"zstd: {library.ZSTD_getErrorName(count).decode()}")
    if count != length or library.ZSTD_decompress(room, 0, frame[first:], len(frame) - first):
        raise BadFrame(f"zstd: {count} bytes in a frame of {length}, or more frames behind it")
    return room.raw[:length]


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer, which have the same fields."""

    _fields_ = [
        ("start", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("place", ctypes.c_size_t),
    ]


class ZstdStream:
    """Reads what a stream decompresses to.

    Raises
    ------
    MissingDependency
        If libzstd is not installed.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._library = _libzstd()
        self._stream = stream
        self._context = ctypes.c_void_p(self._library.ZSTD_createDStream())
        self._taken = ctypes.create_string_buffer(_PIECE)
        self._made = ctypes.create_string_buffer(_PIECE)
        self._in = _Buffer(ctypes.addressof(self._taken), 0, 0)
        self._ready = memoryview(b"")
        self._within = 0  # what ZSTD_decompressStream() returned: 0 between two frames

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.ZSTD_freeDStream(self._context)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, nothing at the end.

        Raises
        ------
        EOFError
            If the last frame is cut short.
        OSError
            If the bytes are not zstd.
        """
        while not self._ready and self._decompress():
            pass
        found = bytes(self._ready[:size])
        self._ready = self._ready[len(found) :]
        return found

    def _decompress(self) -> bool:
        """Decompress some bytes; return whether the stream may have more."""
        if self._in.place == self._in.size and not self._refill():
            if self._within:
                raise EOFError("the last zstd frame is cut short")
            return False
        out = _Buffer(ctypes.addressof(self._made), _PIECE, 0)
        left = self._library.ZSTD_decompressStream(
            self._context, ctypes.byref(out), ctypes.byref(self._in)
        )
        if self._library.ZSTD_isError(left):
            raise OSError(f"zstd: {self._library.ZSTD_getErrorName(left).decode()}")
        self._within = left
        self._ready = memoryview(ctypes.string_at(self._made, out.place))
        return True

    def _refill(self) -> bool:
        data = self._stream.read(_PIECE)
        ctypes.memmove(self._taken, data, len(data))
        self._in.size, self._in.place = len(data), 0
        return bool(data)


@cache
def _libzstd() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError as error:
        raise MissingDependency(
            "libzstd.so.1 is not installed", hint="apt-get install libzstd1"
        ) from error
    size, pointer = ctypes.c_size_t, ctypes.c_char_p
    library.ZSTD_compressBound.argtypes = [size]
    library.ZSTD_compress.argtypes = [pointer, size, pointer, size, ctypes.c_int]
    library.ZSTD_decompress.argtypes = [pointer, size, pointer, size]
    library.ZSTD_findFrameCompressedSize.argtypes = [pointer, size]
    library.ZSTD_isError.argtypes = [size]
    library.ZSTD_getErrorName.argtypes = [size]
    library.ZSTD_getErrorName.restype = pointer
    buffer = ctypes.POINTER(_Buffer)
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
    library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, buffer, buffer]
    for name in ("compressBound", "compress", "decompress", "findFrameCompressedSize"):
        getattr(library, f"ZSTD_{name}").restype = size
    library.ZSTD_decompressStream.restype = size
    return library
