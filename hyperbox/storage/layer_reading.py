"""From a layer's blob to its changes, in one pass: decompress, verify, place the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import ImageError
from hyperbox.storage.compression import decompressed
from hyperbox.storage.content_sink import ContentSink
from hyperbox.storage.inode import Content
from hyperbox.storage.layer import Change, change_of
from hyperbox.storage.limits import Limits
from hyperbox.storage.tar_stream import TarStream

__all__ = ["Layer", "chain_ids", "read_layer"]


@dataclass(frozen=True)
class Layer:
    """A layer as it was pulled.

    Parameters
    ----------
    path
        The blob, as compressed as it came.
    media_type
        What its descriptor says.
    diff_id
        Digest of what it decompresses to, from the image's configuration: ``sha256:...``.
    """

    path: Path
    media_type: str
    diff_id: str

    @property
    def key(self) -> str:
        """Name of what is made of it: the diff ID's hexadecimal digits."""
        return self.diff_id.partition(":")[2]


def read_layer(layer: Layer, sink: ContentSink, limits: Limits) -> list[Change]:
    """Return a layer's changes; the data of its files goes into `sink`.

    Raises
    ------
    ImageError
        If the layer is broken, hostile, or not the one that its diff ID names.
    """
    try:
        with layer.path.open("rb") as blob:
            tar = TarStream(decompressed(blob, ratio=limits.ratio), limits)
            changes = list(_changes(tar, sink, limits))
            found = tar.finish()
    except FileNotFoundError as error:
        raise ImageError(
            f"layer {layer.diff_id} is not in the store",
            hint="'hyperbox pull --ready-images off' gets the layers of an image that was pulled "
            "as its ready one",
        ) from error
    except OSError as error:
        raise ImageError(f"cannot read {layer.path}: {error.strerror}") from error
    except ImageError as error:
        raise ImageError(f"layer {layer.diff_id}: {error.message}", hint=error.hint) from error
    if found != layer.diff_id:
        raise ImageError(
            f"layer {layer.path} decompresses to {found}, its image says {layer.diff_id}",
            hint="the layer was damaged or exchanged: pull the image again",
        )
    return changes


def _changes(tar: TarStream, sink: ContentSink, limits: Limits) -> Iterable[Change]:
    for entry in tar:
        content = Content()
        if entry.header.kind in b"07":
            content = sink.put(entry.header.size, entry.spans, tar.data())
        change = change_of(entry.header, content, limits)
        if change is not None:
            yield change


def chain_ids(layers: Sequence[Layer]) -> list[str]:
    """Return the chain ID's digits of every layer (config.md of the OCI image specification)."""
    chain = layers[0].diff_id
    found = [chain]
    for layer in layers[1:]:
        digest = hashlib.sha256(f"{chain} {layer.diff_id}".encode()).hexdigest()
        chain = f"sha256:{digest}"
        found.append(chain)
    return [one.partition(":")[2] for one in found]
