"""Layers as streams of bytes, whatever they are compressed with.

gzip files may have many members (RFC 1952, 2.2), zstd files many frames with skippable ones
between (RFC 8878, 3.1): eStargz, zstd:chunked and parallel compressors write such. What comes
after the first frame is easily lost: one-shot decompression of the package zstandard (0.25) drops
it without an error.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import IO, BinaryIO, cast

from hyperbox.errors import ImageError
from hyperbox.storage.zstd import ZstdStream

__all__ = ["BoundedReader", "decompressed"]

_GZIP = b"\x1f\x8b"
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
        except (OSError, EOFError, zlib.error) as error:
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
        If it is zstd, and libzstd is not there.
    """
    magic = stream.read(4)
    stream.seek(0)
    if magic[:2] == _GZIP:
        opened = cast("IO[bytes]", gzip.GzipFile(fileobj=stream, mode="rb"))
    elif magic == _ZSTD or (magic[1:] == _SKIPPABLE and magic[0] >> 4 == 5):
        opened = cast("IO[bytes]", ZstdStream(stream))
    else:
        opened = stream
    return BoundedReader(opened, stream.tell, ratio=ratio, free=free)
