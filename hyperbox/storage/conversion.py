"""From layers to what a rung mounts; kept in the store, made once."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import ImageError
from hyperbox.files import atomic_writer, locked, replace_file
from hyperbox.storage.composefs import with_hidden_objects
from hyperbox.storage.erofs_body import chunked_body, composefs_body, plain_body
from hyperbox.storage.erofs_image import Device, write_image
from hyperbox.storage.image_mounts import composefs_mounted, erofs_mounted, overlay_mounted
from hyperbox.storage.layer_reading import Layer
from hyperbox.storage.layer_store import LayerStore, StoredLayer
from hyperbox.storage.limits import Limits
from hyperbox.storage.object_layers import ObjectLayers
from hyperbox.storage.overlay_layers import copied, delta
from hyperbox.storage.rung import Rung
from hyperbox.storage.tree import Tree
from hyperbox.storage.unpacking import unpack

__all__ = ["Converted", "Converter"]


@dataclass(frozen=True)
class Converted:
    """An image as a rung mounts it.

    Parameters
    ----------
    path
        The EROFS or composefs image; of overlayfs the directory of the uppermost layer.
    parts
        What it is mounted with: blobs of layers, the objects' directory, all layers' directories.
    """

    rung: Rung
    path: Path
    parts: tuple[Path, ...]


class Converter:
    """Makes images below a directory.

    Parameters
    ----------
    root
        Top of the store; what is made here lies below ``converted``.
    """

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self.root = root / "converted"
        self.layers = LayerStore(self.root)
        self.objects = ObjectLayers(self.root)
        self._limits = limits or Limits()

    def convert(self, layers: Sequence[Layer], rung: Rung) -> Converted:
        """Return an image of layers, the lowest first, for a rung; made if it is not there.

        Raises
        ------
        ImageError
            If a layer is broken or hostile.
        HarnessError
            If the store cannot be written.
        """
        if not layers:
            raise ImageError("the image has no layers")
        make = {
            Rung.EROFS: self._erofs,
            Rung.COMPOSEFS: self._composefs,
            Rung.OVERLAY: self._overlay,
        }
        return make[rung](layers)

    def tree(self, layers: Sequence[Layer]) -> Tree:
        """Return the files of an image."""
        return _merged(self._stored(layers))

    def write_plain(self, layers: Sequence[Layer], path: Path) -> None:
        """Write an EROFS image that has all data in itself and mounts on any kernel since 5.4."""
        tree = self.tree(layers)
        with atomic_writer(path) as stream:
            write_image(
                stream,
                tree,
                lambda inode: plain_body(inode, self.layers.read),
                pieces=self.layers.pieces,
            )

    @contextlib.contextmanager
    def mounted(self, image: Converted, point: Path) -> Iterator[Path]:
        """Mount an image read-only for the block.

        Raises
        ------
        KernelFeatureMissing, WorkloadError
            If the kernel cannot, or refuses.
        """
        point = point.resolve()
        if image.rung is Rung.EROFS:
            mounting = erofs_mounted(image.path, image.parts, point)
        elif image.rung is Rung.COMPOSEFS:
            mounting = composefs_mounted(image.path, image.parts[0], point)
        else:
            mounting = overlay_mounted(image.parts, point)
        with mounting:
            yield point

    def _stored(self, layers: Sequence[Layer]) -> list[StoredLayer]:
        return [self.layers.get(layer, self._limits) for layer in layers]

    def _erofs(self, layers: Sequence[Layer]) -> Converted:
        path = self.root / "erofs" / f"{_chain(layers)}.erofs"
        stored = self._stored(layers)
        used = {one.key: one for one in stored if one.bytes}
        blobs = tuple(one.blob for one in used.values())
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                numbers = {key: number for number, key in enumerate(used, start=1)}
                devices = [Device(one.key[:63], one.bytes) for one in used.values()]
                with atomic_writer(path) as stream:
                    write_image(
                        stream,
                        _merged(stored),
                        lambda inode: chunked_body(inode, numbers),
                        devices=devices,
                    )
        return Converted(Rung.EROFS, path, blobs)

    def _composefs(self, layers: Sequence[Layer]) -> Converted:
        path = self.root / "composefs" / f"{_chain(layers)}.cfs"
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                tree = Tree()
                for layer in layers:
                    tree.apply(self.objects.get(layer, self._limits))
                with atomic_writer(path) as stream:
                    write_image(stream, with_hidden_objects(tree), composefs_body)
        return Converted(Rung.COMPOSEFS, path, (self.objects.store.root,))

    def _overlay(self, layers: Sequence[Layer]) -> Converted:
        top = self.root / "unpacked"
        empty = top / "empty"  # overlayfs wants two directories at least
        places = tuple(top / _chain(layers[:count]) / "fs" for count in range(1, len(layers) + 1))
        with locked(top / f".{_chain(layers)}.lock"):
            empty.mkdir(parents=True, exist_ok=True)
            if not all(place.exists() for place in places):
                self._unpack(layers, places)
        return Converted(Rung.OVERLAY, places[-1], (empty, *places))

    def _unpack(self, layers: Sequence[Layer], places: Sequence[Path]) -> None:
        """Unpack the layers that are not there yet; their blobs are of no use afterwards."""
        top = self.root / "unpacked"
        with tempfile.TemporaryDirectory(dir=top, prefix=".new-") as directory:
            scratch = LayerStore(Path(directory))
            tree = Tree()
            for number, (layer, place) in enumerate(zip(layers, places, strict=True)):
                before = copied(tree) if number else {}
                tree.apply(scratch.get(layer, self._limits).changes)
                if place.exists():
                    continue
                fresh = Path(directory) / str(number)
                (fresh / "fs").mkdir(parents=True)
                unpack(fresh / "fs", delta(before, tree), scratch.read)
                with contextlib.suppress(FileExistsError):
                    shutil.rmtree(place.parent, ignore_errors=True)
                replace_file(fresh, place.parent)


def _merged(layers: Sequence[StoredLayer]) -> Tree:
    tree = Tree()
    for layer in layers:
        tree.apply(layer.changes)
    return tree


def _chain(layers: Sequence[Layer]) -> str:
    """Return the chain ID's digits of the uppermost layer (config.md of OCI)."""
    chain = layers[0].diff_id
    for layer in layers[1:]:
        digest = hashlib.sha256(f"{chain} {layer.diff_id}".encode()).hexdigest()
        chain = f"sha256:{digest}"
    return chain.partition(":")[2]
