"""The chunk index of an EROFS layer: which bytes of a blob make which bytes of the image.

Format ``application/vnd.erofs.chunk-index.v1`` of the draft EROFS image layer specification
(repository erofs/erofs-image-spec, spec.md 3.4 of 2026): a header of 32 bytes, then one entry a
chunk with its place in the blob, its place in the image and the digest of its bytes *as they
are stored*. Reading trusts nothing: an index that contradicts itself, its blob or a limit is
refused whole.
"""

from __future__ import annotations

import bisect
import hashlib
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from hyperbox.errors import WorkloadError

__all__ = [
    "DIGEST",
    "LARGEST_CHUNK",
    "MEDIA_TYPE",
    "RANGE",
    "BadIndex",
    "Chunk",
    "ChunkIndex",
    "Compression",
    "encode_chunk_index",
    "index_range",
    "parse_chunk_index",
    "skippable_frame",
]

MEDIA_TYPE = "application/vnd.erofs.chunk-index.v1"
RANGE = "org.erofs.chunk-index.range"
"""Annotation with the place of an embedded index in its blob: ``offset[:end]``."""
DIGEST = "org.erofs.chunk-index.digest"
"""Annotation with the digest of the index itself, without a frame around it."""

LARGEST_CHUNK = 64 << 20
"""Bytes of a chunk in the image; one chunk is in memory at a time for each reader."""

_MAGIC = b"\xcd\xe4\xec\x67"
_HEADER = struct.Struct("<4sBBHQIBB10s")
_PLACE = struct.Struct("<QQ")
_SHA2 = 1
_HASHES = {32: "sha256", 64: "sha512"}  # by bytes of the checksum
_MOST_CHUNKS = 1 << 20  # 64 MiB of index: a terabyte at a megabyte each
_LARGEST_IMAGE = 1 << 48
_SKIPPABLE = 0x184D2A50  # RFC 8878, 3.1.2; the lowest of sixteen magic numbers
_RANGE = re.compile(r"([0-9]{1,15})(?::([0-9]{1,15}))?")


class BadIndex(WorkloadError):
    """An index that cannot be trusted, or that says nothing to verify chunks by."""


class Compression(IntEnum):
    """How each chunk is stored."""

    NONE = 0
    ZSTD = 1
    """One zstd frame a chunk."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of bytes of the image, and where it is stored."""

    number: int
    offset: int
    """In the image."""
    length: int
    stored_at: int
    """In the blob."""
    stored_length: int
    checksum: bytes
    """Of the stored bytes: SHA-256 or SHA-512 by its length."""

    @property
    def end(self) -> int:
        """Where it ends in the image."""
        return self.offset + self.length

    def is_stored_as(self, data: bytes) -> bool:
        """Whether these are its stored bytes."""
        name = _HASHES[len(self.checksum)]
        return len(data) == self.stored_length and hashlib.new(name, data).digest() == self.checksum


@dataclass(frozen=True)
class ChunkIndex:
    """All chunks of an image, in its order, without a gap."""

    size: int
    """Bytes of the image."""
    compression: Compression
    chunks: Sequence[Chunk]

    def covering(self, offset: int, length: int) -> Sequence[Chunk]:
        """Return the chunks that have bytes of a range; what is beyond the end has none."""
        if length <= 0 or offset >= self.size:
            return ()
        first = bisect.bisect_right(self.chunks, offset, key=lambda chunk: chunk.offset) - 1
        behind = bisect.bisect_left(self.chunks, offset + length, key=lambda chunk: chunk.offset)
        return self.chunks[max(first, 0) : behind]


def parse_chunk_index(payload: bytes, *, stored: int) -> ChunkIndex:
    """Return the index that a payload is; pure.

    Parameters
    ----------
    payload
        Header and entries, without a frame around them.
    stored
        Where the chunks' bytes end in the blob: where an embedded index begins, or the size of
        the blob.

    Raises
    ------
    BadIndex
        If it is not one, has no checksums, or contradicts itself or `stored`.
    """
    if len(payload) < _HEADER.size:
        raise BadIndex(f"chunk index: {len(payload)} bytes are not a header")
    magic, version, compression, flags, size, count, algorithm, width, rest = _HEADER.unpack_from(
        payload
    )
    if magic != _MAGIC or version != 1:
        raise BadIndex(f"chunk index: magic {magic.hex()} version {version} is not known")
    if flags or any(rest) or compression not in tuple(Compression):
        raise BadIndex("chunk index: it uses something of a later version")
    if algorithm != _SHA2 or width not in _HASHES:
        raise BadIndex(
            "chunk index: without SHA-2 checksums no chunk can be verified",
            hint="pull the image whole",
        )
    if count > _MOST_CHUNKS or size > _LARGEST_IMAGE or (count == 0) != (size == 0):
        raise BadIndex(f"chunk index: {count} chunks for {size} bytes")
    if len(payload) != _HEADER.size + count * (_PLACE.size + width):
        raise BadIndex(f"chunk index: {len(payload)} bytes do not have {count} chunks")
    kind = Compression(compression)
    return ChunkIndex(size, kind, _chunks(payload, count, width, kind, size, stored))


def _chunks(
    payload: bytes, count: int, width: int, compression: Compression, size: int, stored: int
) -> tuple[Chunk, ...]:
    step = _PLACE.size + width
    starts = range(_HEADER.size, _HEADER.size + count * step, step)
    places = [_PLACE.unpack_from(payload, start) for start in starts]
    ends = [*places[1:], (stored, size)]
    found = []
    for number, ((at, offset), (next_at, next_offset)) in enumerate(
        zip(places, ends, strict=False)
    ):
        length = next_offset - offset
        stored_length = length if compression is Compression.NONE else next_at - at
        if number == 0 and offset != 0:
            raise BadIndex(f"chunk index: the image begins at {offset}")
        if not 0 < length <= LARGEST_CHUNK:
            raise BadIndex(f"chunk index: chunk {number} has {length} bytes")
        if not 0 < stored_length <= _most_stored(length) or at + stored_length > stored:
            raise BadIndex(f"chunk index: chunk {number} is stored in {stored_length} at {at}")
        checksum = payload[starts[number] + _PLACE.size : starts[number] + step]
        found.append(Chunk(number, offset, length, at, stored_length, checksum))
    return tuple(found)


def _most_stored(length: int) -> int:
    """Return how long a frame of so many bytes may be: ZSTD_compressBound and some padding."""
    return length + (length >> 8) + (128 << 10)


def encode_chunk_index(index: ChunkIndex) -> bytes:
    """Return an index as the payload that `parse_chunk_index` reads; pure.

    Raises
    ------
    ValueError
        If its checksums are not all of one kind.
    """
    widths = {len(chunk.checksum) for chunk in index.chunks} or {32}
    if len(widths) != 1:
        raise ValueError(f"checksums of {sorted(widths)} bytes in one index")
    width = widths.pop()
    header = _HEADER.pack(
        _MAGIC, 1, index.compression, 0, index.size, len(index.chunks), _SHA2, width, bytes(10)
    )
    return header + b"".join(_entries(index.chunks))


def _entries(chunks: Iterable[Chunk]) -> Iterable[bytes]:
    for chunk in chunks:
        yield _PLACE.pack(chunk.stored_at, chunk.offset) + chunk.checksum


def skippable_frame(payload: bytes) -> bytes:
    """Return a zstd frame that decoders pass over: what an index is embedded in."""
    return struct.pack("<II", _SKIPPABLE, len(payload)) + payload


def index_range(annotations: Mapping[str, str], size: int, *, framed: bool) -> tuple[int, int, int]:
    """Return where the index of a blob is: start of its section, start of its payload, and end.

    Parameters
    ----------
    annotations
        Of the layer's descriptor.
    size
        Of the blob, in bytes.
    framed
        Whether a zstd frame is around it, as in a ``+zstd`` layer.

    Raises
    ------
    BadIndex
        If it is not said, or not within the blob.
    """
    said = annotations.get(RANGE, "")
    match = _RANGE.fullmatch(said)
    if match is None:
        raise BadIndex(f"annotation {RANGE}: {said[:80]!r} is not a range")
    start, end = int(match[1]), int(match[2] or size)
    payload = start + (8 if framed else 0)
    if payload >= end or end > size:
        raise BadIndex(f"annotation {RANGE}: {said} is not within {size} bytes")
    return start, payload, end
