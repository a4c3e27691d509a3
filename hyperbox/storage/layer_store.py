"""Layers as EROFS images use them: one blob of all files' data, and the list of changes beside.

A blob is made once for a layer on the layers below it, whatever images have them, and is then
shared by all of them. It has no file that a layer below has: that one's blob is pointed to.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hyperbox.files import atomic_writer, locked, note_sha256, sha256_file, write_bytes
from hyperbox.storage.content_sink import BlobSink
from hyperbox.storage.inode import Content
from hyperbox.storage.layer import Added, Change
from hyperbox.storage.layer_index import encode_index, read_index
from hyperbox.storage.layer_reading import Layer, chain_ids, read_layer
from hyperbox.storage.limits import Limits

__all__ = ["LayerStore", "StoredLayer"]

_PIECE = 1 << 20
_File = tuple[str, int]  # SHA-256 and size


@dataclass(frozen=True)
class StoredLayer:
    """A layer in the store.

    Parameters
    ----------
    key
        The digits of the chain ID up to the layer.
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

    def stack(self, layers: Sequence[Layer], limits: Limits) -> Iterator[StoredLayer]:
        """Yield layers, the lowest first, each read from its blob the first time.

        Several processes may ask for the same one: one of them reads it, the others wait.

        Raises
        ------
        ImageError
            If a layer is broken, hostile, or not the one that its diff ID names.
        HarnessError
            If the store cannot be written.
        """
        below: dict[_File, Content] = {}
        for key, layer in zip(chain_ids(layers), layers, strict=True):
            found = self._get(key, layer, limits, below)
            below |= {
                (one.sha256, one.size): one for one in _contents(found.changes) if one.extents
            }
            yield found

    def _get(
        self, key: str, layer: Layer, limits: Limits, below: Mapping[_File, Content]
    ) -> StoredLayer:
        index = self._root / key / "index.json"
        with locked(self._root / f".{key}.lock"):
            if not (index.exists() and self.blob(key).exists()):
                self._read(key, layer, limits, index, below)
        changes, size, sha256 = read_index(index, key)
        whole = tuple(_found_below(change, below) for change in changes)
        return StoredLayer(key, self.blob(key), size, sha256, whole)

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

    def _read(
        self, key: str, layer: Layer, limits: Limits, index: Path, below: Container[_File]
    ) -> None:
        with atomic_writer(self.blob(key)) as stream:
            sink = BlobSink(stream, key, below)
            changes = read_layer(layer, sink, limits)
            size = sink.finish()
        sha256 = sha256_file(self.blob(key))
        note_sha256(self.blob(key), sha256)
        write_bytes(index, encode_index(changes, size, sha256))


def _contents(changes: Iterable[Change]) -> Iterator[Content]:
    return (change.inode.content for change in changes if isinstance(change, Added))


def _found_below(change: Change, below: Mapping[_File, Content]) -> Change:
    """Return a change whose file's data, if the layer's own blob has none, is in a lower one's."""
    if not isinstance(change, Added):
        return change
    content = change.inode.content
    found = below.get((content.sha256, content.size))
    if content.extents or content.inline is not None or found is None:
        return change
    return replace(change, inode=replace(change.inode, content=found))
