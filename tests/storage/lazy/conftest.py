"""A layer, its index and an HTTP server that has it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyperbox.linux.mounts import mounts, unmount
from hyperbox.storage.lazy.chunk_index import Compression, encode_chunk_index
from hyperbox.storage.lazy.chunk_source import HttpSource
from hyperbox.storage.lazy.content_cache import ContentCache
from hyperbox.storage.lazy.layer_writer import WrittenLayer, write_layer
from hyperbox.storage.lazy.lazy_image import LazyImage
from suites.erofs.blob_server import BlobServer, serving

CHUNK = 1 << 14


@dataclass
class Lab:
    """An image of known content, as a layer behind a server."""

    directory: Path
    content: bytes
    layer: WrittenLayer
    server: BlobServer

    @property
    def key(self) -> str:
        return hashlib.sha256(encode_chunk_index(self.layer.index)).hexdigest()

    @property
    def cache(self) -> ContentCache:
        return ContentCache(self.directory / "cache")

    def source(self) -> HttpSource:
        return HttpSource(f"{self.server.url}/layer", timeout_s=5)

    def image(self, *sources: HttpSource, limit_s: float = 20.0) -> LazyImage:
        opened = self.cache.open(self.key, self.layer.index)
        return LazyImage(opened, sources or (self.source(),), limit_s=limit_s)


@pytest.fixture(params=[Compression.ZSTD, Compression.NONE], ids=["zstd", "raw"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    seeded = random.Random(7)
    content = b"".join(seeded.randbytes(3000) + bytes(3000) for _ in range(60)) + b"end"
    (tmp_path / "blobs").mkdir()
    (tmp_path / "image").write_bytes(content)
    layer = write_layer(
        tmp_path / "image",
        tmp_path / "blobs" / "layer",
        compression=request.param,
        chunk_size=CHUNK,
    )
    with serving(tmp_path / "blobs") as server:
        yield Lab(tmp_path, content, layer, server)


@pytest.fixture(autouse=True)
def nothing_stays_mounted(tmp_path: Path) -> Iterator[None]:
    """Take away what a test that failed has left in the tree."""
    yield
    for one in reversed((*mounts("fuse"), *mounts("erofs"))):
        if tmp_path in one.point.parents:
            unmount(one.point, detach=True)
