"""One zstd frame, to bytes and back, through libzstd's own library.

Every Debian system has libzstd.so.1 (dpkg needs it), also a guest with a bare python. The
functions are those of the stable part of zstd.h (1.4.0).
"""

from __future__ import annotations

import ctypes
from functools import cache

from hyperbox.errors import MissingDependency, WorkloadError

__all__ = ["BadFrame", "compress", "decompress"]


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
    for name in ("compressBound", "compress", "decompress", "findFrameCompressedSize"):
        getattr(library, f"ZSTD_{name}").restype = size
    return library
