"""Layers as EROFS images use them: one blob of all files' data, and the list of changes beside.

A blob is made once for a layer, whatever images have it, and is then shared by all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperbox.files import atomic_writer, locked, sha256_file, write_bytes
from hyperbox.storage.content_sink import BlobSink
from hyperbox.storage.inode import Content
from hyperbox.storage.layer import Change
from hyperbox.storage.layer_index import encode_index, read_index
from hyperbox.storage.layer_reading import Layer, read_layer
from hyperbox.storage.limits import Limits

__all__ = ["LayerStore", "StoredLayer"]

_PIECE = 1 << 20


@dataclass(frozen=True)
class StoredLayer:
    """A layer in the store.

    Parameters
    ----------
    key
        The diff ID's digits.
    blob
        File with the data of its files.
    bytes, sha256
        Size and digest of the blob.
    """

    key: str
    blob: Path
    bytes: int
    sha256: str
    changes: tuple[Change, ...]


class LayerStore:
    """The layers below ``ROOT/blobs``, each in a directory of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root / "blobs"

    def blob(self, key: str) -> Path:
        """Return where a layer's blob is."""
        return self._root / key / "data"

    def get(self, layer: Layer, limits: Limits) -> StoredLayer:
        """Return a layer, read from its blob the first time.

        Several processes may ask for the same one: one of them reads it, the others wait.

        Raises
        ------
        ImageError
            If the layer is broken, hostile, or not the one that its diff ID names.
        HarnessError
            If the store cannot be written.
        """
        index = self._root / layer.key / "index.json"
        with locked(self._root / f".{layer.key}.lock"):
            if not (index.exists() and self.blob(layer.key).exists()):
                self._read(layer, limits, index)
        changes, size, sha256 = read_index(index, layer.key)
        return StoredLayer(layer.key, self.blob(layer.key), size, sha256, tuple(changes))

    def read(self, content: Content, offset: int, length: int) -> bytes:
        """Return a part of a file's data, holes as zeros."""
        if content.inline is not None:
            return content.inline[offset : offset + length]
        data = bytearray(length)
        with self.blob(content.blob).open("rb") as stream:
            for extent in content.extents:
                start = max(offset, extent.offset)
                end = min(offset + length, extent.offset + extent.length, content.size)
                if start < end:
                    stream.seek(extent.place + start - extent.offset)
                    data[start - offset : end - offset] = stream.read(end - start)
        return bytes(data)

    def pieces(self, content: Content) -> Iterator[bytes]:
        """Yield a file's data from its start, in pieces."""
        for offset in range(0, content.size, _PIECE):
            yield self.read(content, offset, min(_PIECE, content.size - offset))

    def _read(self, layer: Layer, limits: Limits, index: Path) -> None:
        with atomic_writer(self.blob(layer.key)) as stream:
            sink = BlobSink(stream, layer.key)
            changes = read_layer(layer, sink, limits)
            size = sink.finish()
        write_bytes(index, encode_index(changes, size, sha256_file(self.blob(layer.key))))
