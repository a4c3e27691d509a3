"""Makes a layer that can be loaded lazily: an EROFS image in chunks, with its index.

Layers of the draft EROFS image layer specification: raw (``application/vnd.erofs``), where the
index follows the image's bytes, or ``+zstd`` with one frame a chunk and the index in a frame that
decoders pass over, so that any zstd program reads the whole layer as the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hyperbox.files import atomic_writer
from hyperbox.storage.lazy.chunk_index import (
    DIGEST,
    RANGE,
    Chunk,
    ChunkIndex,
    Compression,
    encode_chunk_index,
    skippable_frame,
)
from hyperbox.storage.oci import EROFS_IMAGE
from hyperbox.storage.zstd import compress

__all__ = ["CHUNK_SIZE", "WrittenLayer", "write_layer"]

CHUNK_SIZE = 1 << 20
"""Bytes of a chunk: one request at 50 ms and 100 Mb/s then waits as long as it transfers."""

_TYPES = {Compression.NONE: EROFS_IMAGE, Compression.ZSTD: f"{EROFS_IMAGE}+zstd"}
_UNCOMPRESSED = "org.erofs.uncompressed-digest"


@dataclass(frozen=True)
class WrittenLayer:
    """What a descriptor says of a layer that was written."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str]
    index: ChunkIndex


def write_layer(
    image: Path,
    layer: Path,
    *,
    compression: Compression = Compression.ZSTD,
    chunk_size: int = CHUNK_SIZE,
    level: int = 3,
) -> WrittenLayer:
    """Write an EROFS image as a layer; the same image makes the same bytes.

    Parameters
    ----------
    level
        Of zstd.

    Raises
    ------
    HarnessError
        If the layer cannot be written.
    """
    chunks: list[Chunk] = []
    whole, plain = hashlib.sha256(), hashlib.sha256()
    size = at = 0
    with image.open("rb") as source, atomic_writer(layer) as target:
        while data := source.read(chunk_size):
            stored = compress(data, level) if compression is Compression.ZSTD else data
            checksum = hashlib.sha256(stored).digest()
            chunks.append(Chunk(len(chunks), size, len(data), at, len(stored), checksum))
            for digest, part in ((plain, data), (whole, stored)):
                digest.update(part)
            target.write(stored)
            size, at = size + len(data), at + len(stored)
        index = ChunkIndex(size, compression, tuple(chunks))
        payload = encode_chunk_index(index)
        section = skippable_frame(payload) if compression is Compression.ZSTD else payload
        target.write(section)
        whole.update(section)
    annotations = {
        RANGE: f"{at}:{at + len(section)}",
        DIGEST: f"sha256:{hashlib.sha256(payload).hexdigest()}",
    }
    if compression is Compression.ZSTD:
        annotations[_UNCOMPRESSED] = f"sha256:{plain.hexdigest()}"
    digest_of_all = f"sha256:{whole.hexdigest()}"
    return WrittenLayer(_TYPES[compression], digest_of_all, at + len(section), annotations, index)
