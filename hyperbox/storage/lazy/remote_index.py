"""Fetches the chunk index of a layer that is elsewhere; it is verified before it is parsed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hyperbox.storage.lazy.chunk_index import (
    DIGEST,
    BadIndex,
    index_range,
    parse_chunk_index,
    skippable_frame,
)
from hyperbox.storage.lazy.chunk_source import ChunkSource

__all__ = ["RemoteIndex", "fetch_index"]

_MOST_BYTES = 96 << 20
_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class RemoteIndex:
    """An index as `hyperbox.storage.lazy.content_cache` keeps it."""

    key: str
    """SHA-256 of the payload."""
    payload: bytes
    stored: int
    """Where the chunks' bytes end in the blob."""


def fetch_index(
    source: ChunkSource, annotations: Mapping[str, str], size: int, *, framed: bool
) -> RemoteIndex:
    """Return the index that a layer's annotations name.

    Parameters
    ----------
    annotations
        Of the layer's descriptor, in a manifest that was verified by its digest.
    size
        Of the layer's blob, in bytes.
    framed
        Whether it is a ``+zstd`` layer, whose index has a frame around it.

    Raises
    ------
    BadIndex
        If the annotations name none, or another one than is there, or it contradicts itself.
    SourceFailed
        If the source cannot be read.
    """
    start, payload_at, end = index_range(annotations, size, framed=framed)
    match = _SHA256.fullmatch(annotations.get(DIGEST, ""))
    if match is None:
        raise BadIndex(
            f"annotation {DIGEST}: without it nothing can be verified", hint="pull the image whole"
        )
    if end - start > _MOST_BYTES:
        raise BadIndex(f"chunk index: {end - start} bytes are too many")
    section = source.read(start, end - start)
    payload = section[payload_at - start :]
    if hashlib.sha256(payload).hexdigest() != match[1]:
        raise BadIndex(f"{source.name}: the chunk index is not the one that the layer names")
    if framed and section[4:8] != skippable_frame(payload)[4:8]:
        raise BadIndex("chunk index: its frame has another length")
    parse_chunk_index(payload, stored=start)
    return RemoteIndex(match[1], payload, start)
