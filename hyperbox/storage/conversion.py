"""From layers to what a rung mounts; kept in the store, made once."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import ImageError
from hyperbox.files import atomic_writer, locked, replace_file, sha256_file
from hyperbox.storage.artifacts import complete, record, verify
from hyperbox.storage.composefs import with_hidden_objects
from hyperbox.storage.compressed_image import write_compressed
from hyperbox.storage.erofs_body import chunked_body, composefs_body, plain_body
from hyperbox.storage.erofs_image import Device, write_image
from hyperbox.storage.image_mounts import (
    composefs_mounted,
    erofs_mounted,
    layers_mounted,
    overlay_mounted,
)
from hyperbox.storage.layer_reading import Layer, chain_ids
from hyperbox.storage.layer_store import LayerStore, StoredLayer
from hyperbox.storage.limits import Limits
from hyperbox.storage.object_layers import ObjectLayers
from hyperbox.storage.overlay_layers import Placed, copied, delta, delta_tree
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
        The image; of the rungs that stack layers, what the uppermost one became.
    parts
        What it is mounted with: blobs of layers, the objects' directory, every layer from the
        lowest up.
    manifest
        Its files with their digests (`hyperbox.storage.artifacts`).
    """

    rung: Rung
    path: Path
    parts: tuple[Path, ...]
    manifest: Path


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
        makers: dict[Rung, Callable[[Sequence[Layer], Converted], None]] = {
            Rung.EROFS: self._make_erofs,
            Rung.LAYERS: self._make_layers,
            Rung.COMPOSEFS: self._make_composefs,
            Rung.OVERLAY: self._make_unpacked,
        }
        image = self.image(layers, rung)
        with self.making(rung):
            if not (complete(image.manifest) and all(part.exists() for part in image.parts)):
                makers[rung](layers, image)
        return image

    @contextlib.contextmanager
    def making(self, rung: Rung) -> Iterator[None]:
        """Keep others from making or removing images of a rung for the block."""
        with locked(self.root / f".{rung}.lock"):
            yield

    def image(self, layers: Sequence[Layer], rung: Rung) -> Converted:
        """Return where an image is, or would be."""
        chain = chain_ids(layers)
        manifest = self.root / "manifests" / f"{chain[-1]}.{rung}.json"
        top = self.root / rung
        if rung is Rung.EROFS:
            parts = tuple(self.layers.blob(one) for one in chain)
        elif rung is Rung.COMPOSEFS:
            parts = (self.objects.store.root,)
        else:  # overlayfs wants two layers at least: an empty one below all
            last = "layer.erofs" if rung is Rung.LAYERS else "fs"
            parts = (top / "empty", *(top / one / last for one in chain))
        stacked = rung in (Rung.LAYERS, Rung.OVERLAY)
        path = parts[-1] if stacked else top / f"{chain[-1]}.erofs"
        return Converted(rung, path, parts, manifest)

    def tree(self, layers: Sequence[Layer]) -> Tree:
        """Return the files of an image."""
        return _merged(self.layers.stack(layers, self._limits))

    def write_plain(self, layers: Sequence[Layer], path: Path) -> None:
        """Write an EROFS image that has all data in itself and mounts on any kernel since 5.4."""
        _write_plain(self.tree(layers), self.layers, path)

    def write_compressed(self, layers: Sequence[Layer], path: Path, algorithm: str) -> None:
        """Write one EROFS image, compressed; see `hyperbox.storage.compressed_image`."""
        tree = self.tree(layers)
        write_compressed(tree, self.layers.read, path, algorithm, chain_ids(layers)[-1])

    @contextlib.contextmanager
    def mounted(self, image: Converted, point: Path) -> Iterator[Path]:
        """Mount an image read-only for the block, its files verified.

        Raises
        ------
        ImageError
            If a file of the image is damaged.
        KernelFeatureMissing, WorkloadError
            If the kernel cannot, or refuses.
        """
        verify(image.manifest)
        point = point.resolve()
        if image.rung is Rung.EROFS:
            full = [part for part in image.parts if part.stat().st_size]
            mounting = erofs_mounted(image.path, full, point)
        elif image.rung is Rung.LAYERS:
            mounting = layers_mounted(image.parts[0], image.parts[1:], point)
        elif image.rung is Rung.COMPOSEFS:
            mounting = composefs_mounted(image.path, image.parts[0], point)
        else:
            mounting = overlay_mounted(image.parts, point)
        with mounting:
            yield point

    def _make_erofs(self, layers: Sequence[Layer], image: Converted) -> None:
        stored = list(self.layers.stack(layers, self._limits))
        full = [one for one in stored if one.bytes]
        numbers = {one.key: number for number, one in enumerate(full, start=1)}
        devices = [Device(one.key[:63], one.bytes) for one in full]
        with atomic_writer(image.path) as stream:
            write_image(
                stream,
                _merged(stored),
                lambda inode: chunked_body(inode, numbers, self.layers.read),
                devices=devices,
            )
        blobs = {one.blob: one.sha256 for one in stored}
        record(image.manifest, {image.path: sha256_file(image.path), **blobs})

    def _make_composefs(self, layers: Sequence[Layer], image: Converted) -> None:
        tree = Tree()
        for layer in layers:
            tree.apply(self.objects.get(layer, self._limits))
        with atomic_writer(image.path) as stream:
            write_image(stream, with_hidden_objects(tree), composefs_body)
        contents = (node.inode.content for _, node in tree.walk())
        objects = {
            self.objects.store.path(one.sha256): one.sha256
            for one in contents
            if one.sha256 and one.inline is None
        }
        record(image.manifest, {image.path: sha256_file(image.path), **objects})

    def _make_layers(self, layers: Sequence[Layer], image: Converted) -> None:
        image.parts[0].mkdir(parents=True, exist_ok=True)
        with self._stacked(layers) as (scratch, stack):
            for place, files in zip(image.parts[1:], stack, strict=True):
                if not place.exists():
                    _write_plain(delta_tree(files), scratch, place)
        record(image.manifest, {place: sha256_file(place) for place in image.parts[1:]})

    def _make_unpacked(self, layers: Sequence[Layer], image: Converted) -> None:
        image.parts[0].mkdir(parents=True, exist_ok=True)
        found: dict[Path, str] = {}
        with self._stacked(layers) as (scratch, stack):
            for place, files in zip(image.parts[1:], stack, strict=True):
                if not place.exists():
                    self._unpack(place.parent, files, scratch)
                found |= {
                    place.joinpath(*map(_text, one.path)): one.node.inode.content.sha256
                    for one in files
                    if one.node.inode.content.sha256
                }
        record(image.manifest, found)

    def _unpack(self, place: Path, files: Sequence[Placed], scratch: LayerStore) -> None:
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".new-") as directory:
            fresh = Path(directory) / "layer"
            (fresh / "fs").mkdir(parents=True)
            unpack(fresh / "fs", files, scratch.read)
            shutil.rmtree(place, ignore_errors=True)
            replace_file(fresh, place)

    @contextlib.contextmanager
    def _stacked(
        self, layers: Sequence[Layer]
    ) -> Iterator[tuple[LayerStore, Iterator[list[Placed]]]]:
        """Yield a store of the layers' data for the block, and what each one adds."""
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".new-") as directory:
            scratch = LayerStore(Path(directory))
            yield scratch, self._deltas(layers, scratch)

    def _deltas(self, layers: Sequence[Layer], scratch: LayerStore) -> Iterator[list[Placed]]:
        tree = Tree()
        for number, layer in enumerate(scratch.stack(layers, self._limits)):
            before = copied(tree) if number else {}
            tree.apply(layer.changes)
            yield delta(before, tree)


def _write_plain(tree: Tree, data: LayerStore, path: Path) -> None:
    with atomic_writer(path) as stream:
        write_image(stream, tree, lambda inode: plain_body(inode, data.read), pieces=data.pieces)


def _merged(layers: Iterable[StoredLayer]) -> Tree:
    tree = Tree()
    for layer in layers:
        tree.apply(layer.changes)
    return tree


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
