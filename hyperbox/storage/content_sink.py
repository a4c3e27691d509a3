"""Where the data of files goes while a layer is read: into one blob, or nowhere."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from typing import IO, Protocol

from hyperbox.storage.inode import Content, Extent
from hyperbox.storage.tar_header import Span

__all__ = [
    "BLOCK_BYTES",
    "INLINE_BYTES",
    "PACKED_BYTES",
    "BlobSink",
    "ContentSink",
    "Hasher",
    "aligned",
    "inline_content",
]

BLOCK_BYTES = 4096
"""Block size of every image: what all kernels mount, whatever their pages."""

INLINE_BYTES = 64
"""Longest file that is kept with the metadata, as in composefs."""

PACKED_BYTES = 1024
"""Longest file of a blob that shares a block with others; images have it in their metadata.

A block of its own costs such a file 3 KiB or more, which is worth a copy in each of a few images.
"""

_ZEROS = bytes(1 << 20)


class ContentSink(Protocol):
    """Takes the data of one regular file after the other."""

    def put(
        self, size: int, spans: tuple[Span, ...], pieces: Iterable[tuple[int, bytes]]
    ) -> Content:
        """Take a file; return where its data is.

        Parameters
        ----------
        spans
            Where the file has data.
        pieces
            The data in order: offset in the file, bytes.
        """
        ...


class Hasher:
    """SHA-256 of a file whose data comes in pieces with holes between."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._end = 0

    def add(self, offset: int, data: bytes) -> None:
        """Take a piece; what lies between it and the one before is zeros."""
        self._zeros(offset - self._end)
        self._hash.update(data)
        self._end = offset + len(data)

    def digest(self, size: int) -> str:
        """Return the hexadecimal digest of a file of `size` bytes."""
        self._zeros(size - self._end)
        self._end = size
        return self._hash.hexdigest()

    def _zeros(self, count: int) -> None:
        while count > 0:
            piece = min(count, len(_ZEROS))
            self._hash.update(_ZEROS[:piece])
            count -= piece


def aligned(spans: Iterable[Span]) -> list[Span]:
    """Return the spans widened to whole blocks; those that touch become one. Pure."""
    found: list[Span] = []
    for offset, length in spans:
        start = offset - offset % BLOCK_BYTES
        end = offset + length + -(offset + length) % BLOCK_BYTES
        if found and start <= sum(found[-1]):
            start = found.pop()[0]
        found.append((start, end - start))
    return found


class BlobSink:
    """One blob of a layer's files, equal ones once.

    Each is at a multiple of the block size; short ones share blocks.

    Parameters
    ----------
    stream
        The blob: seekable, empty.
    blob
        Its key, for the extents.
    below
        Digest and size of files that another blob has: they get no extents here.
    """

    def __init__(
        self, stream: IO[bytes], blob: str, below: Container[tuple[str, int]] = ()
    ) -> None:
        self._stream = stream
        self._blob = blob
        self._below = below
        self._end = 0
        self._page = (0, 0)  # of short files: where the next one goes, and where its block ends
        self._known: dict[tuple[str, int], tuple[Extent, ...]] = {}

    def put(
        self, size: int, spans: tuple[Span, ...], pieces: Iterable[tuple[int, bytes]]
    ) -> Content:
        """Write a file; see `ContentSink`."""
        if not size:
            return Content()
        if size <= INLINE_BYTES:
            return inline_content(size, pieces)
        if size <= PACKED_BYTES:
            return self._packed(inline_content(size, pieces))
        extents, end = [], self._end
        for offset, length in aligned(spans):
            extents.append(Extent(offset, end, length))
            end += length
        hasher = Hasher()
        current = iter(extents)
        extent = next(current, None)
        for offset, data in pieces:
            while extent is not None and offset >= extent.offset + extent.length:
                extent = next(current)
            assert extent is not None
            self._stream.seek(extent.place + offset - extent.offset)
            self._stream.write(data)
            hasher.add(offset, data)
        sha256 = hasher.digest(size)
        key = (sha256, size)
        if key in self._below:
            return Content(size, sha256)
        if key not in self._known:
            self._known[key] = tuple(extents)
            self._end = end
        return Content(size, sha256, self._blob, self._known[key])

    def _packed(self, content: Content) -> Content:
        size, sha256, key = content.size, content.sha256, (content.sha256, content.size)
        if key in self._below:
            return Content(size, sha256)
        if key not in self._known:
            place, end = self._page
            if end - place < size:
                place, end = self._end, self._end + BLOCK_BYTES
                self._end = end
            self._page = (place + size, end)
            self._stream.seek(place)
            self._stream.write(content.inline or b"")
            self._known[key] = (Extent(0, place, size),)
        return Content(size, sha256, self._blob, self._known[key])

    def finish(self) -> int:
        """Cut the blob to its last block; return its size in bytes."""
        self._stream.truncate(self._end)
        return self._end


def inline_content(size: int, pieces: Iterable[tuple[int, bytes]]) -> Content:
    """Return a file that is kept with the metadata."""
    data = bytearray(size)
    for offset, piece in pieces:
        data[offset : offset + len(piece)] = piece
    return Content(size, hashlib.sha256(data).hexdigest(), inline=bytes(data))
