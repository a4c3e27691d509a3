"""Layers as composefs uses them: data by digest, and the list of changes for each layer."""

from __future__ import annotations

from pathlib import Path

from hyperbox.files import locked, write_bytes
from hyperbox.storage.layer import Change
from hyperbox.storage.layer_index import encode_index, read_index
from hyperbox.storage.layer_reading import Layer, read_layer
from hyperbox.storage.limits import Limits
from hyperbox.storage.object_store import ObjectStore

__all__ = ["ObjectLayers"]


class ObjectLayers:
    """Layers whose data is in ``ROOT/objects``, their changes in ``ROOT/object-layers``."""

    def __init__(self, root: Path) -> None:
        self._root = root / "object-layers"
        self.store = ObjectStore(root / "objects")

    def get(self, layer: Layer, limits: Limits) -> list[Change]:
        """Return a layer's changes, read from its blob the first time; raises as `read_layer`."""
        index = self._root / f"{layer.key}.json"
        with locked(self._root / f".{layer.key}.lock"):
            if not index.exists():
                changes = read_layer(layer, self.store, limits)
                self.store.sync()
                write_bytes(index, encode_index(changes))
            return read_index(index, "")[0]
