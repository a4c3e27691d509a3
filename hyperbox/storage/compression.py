"""Layers as streams of bytes, whatever they are compressed with.

gzip files may have many members (RFC 1952, 2.2), zstd files many frames with skippable ones
between (RFC 8878, 3.1): eStargz, zstd:chunked and parallel compressors write such. What comes
after a zstd frame is easily lost: one-shot decompression of the package zstandard (0.25) stops
after the first frame without an error, so it is not used here.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import sys
import zlib
from collections.abc import Callable
from typing import IO, BinaryIO, cast

from hyperbox.errors import ImageError
from hyperbox.storage.zstd_stream import ZstdStream

__all__ = ["BoundedReader", "decompressed"]

_GZIP = b"\x1f\x8b"
_ZSTD_MODULES = ("compression.zstd", "backports.zstd")
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte of 0x50 to 0x5f: RFC 8878, 3.1.2


class BoundedReader:
    """Reads from a decompressor; refuses a stream that grows beyond all measure.

    Parameters
    ----------
    stream
        Yields the decompressed bytes.
    consumed
        Returns how many compressed bytes were read so far.
    ratio
        Most decompressed bytes for each compressed one, once `free` bytes have come out.
    """

    def __init__(
        self, stream: IO[bytes], consumed: Callable[[], int], *, ratio: int, free: int
    ) -> None:
        self._stream = stream
        self._consumed = consumed
        self._ratio = ratio
        self._free = free
        self.count = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, nothing at the end; ImageError if they are broken."""
        try:
            data = self._stream.read(size)
        except _broken() as error:
            raise ImageError(f"the layer cannot be decompressed: {error}") from error
        self.count += len(data)
        if self.count > self._free and self.count > self._ratio * max(1, self._consumed()):
            raise ImageError(
                f"the layer grows more than {self._ratio} times when it is decompressed",
                hint="a larger limit on the ratio admits it, if you trust its source",
            )
        return data


def decompressed(stream: BinaryIO, *, ratio: int, free: int = 64 << 20) -> BoundedReader:
    """Return what a blob decompresses to; its first bytes say how it is compressed.

    The media type is not asked: registries have blobs whose type is wrong, and the digest of
    what comes out is checked in any case.

    Raises
    ------
    MissingDependency
        If it is zstd, and neither Python's module nor libzstd is there.
    """
    magic = stream.read(4)
    stream.seek(0)
    if magic[:2] == _GZIP:
        opened = cast("IO[bytes]", gzip.GzipFile(fileobj=stream, mode="rb"))
    elif magic == _ZSTD or (magic[1:] == _SKIPPABLE and magic[0] >> 4 == 5):
        opened = _zstd(stream)
    else:
        opened = stream
    return BoundedReader(opened, stream.tell, ratio=ratio, free=free)


def _zstd(stream: BinaryIO) -> IO[bytes]:
    for name in _ZSTD_MODULES:  # guests have neither, but libzstd
        with contextlib.suppress(ImportError):
            opened = importlib.import_module(name).ZstdFile(stream, mode="rb")
            return cast("IO[bytes]", opened)
    return cast("IO[bytes]", ZstdStream(stream))


def _broken() -> tuple[type[Exception], ...]:
    """Return what broken streams raise; zstd's own error only if zstd has been imported."""
    modules = [sys.modules.get(name) for name in _ZSTD_MODULES]
    zstd = (module.ZstdError for module in modules if module is not None)
    return (OSError, EOFError, zlib.error, *zstd)
