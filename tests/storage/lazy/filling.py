"""Reads a whole image through its cache, from an HTTP source; says when it begins."""

from __future__ import annotations

import sys
from pathlib import Path

from hyperbox.storage.lazy.chunk_index import parse_chunk_index
from hyperbox.storage.lazy.chunk_source import HttpSource
from hyperbox.storage.lazy.content_cache import ContentCache
from hyperbox.storage.lazy.lazy_image import LazyImage

directory, key, stored, url = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
index = parse_chunk_index((directory / "index").read_bytes(), stored=stored)
image = LazyImage(ContentCache(directory / "cache").open(key, index), [HttpSource(url)])
print("begins", flush=True)
for chunk in index.chunks:
    image.read(chunk.offset, chunk.length)
image.close()
