"""Ready images: an image's layers as EROFS, made by its builder and attached to it as a referrer.

Who pulls takes them in place of the layers: they are decompressed and mounted (`Rung.LAYERS`), and
nothing is converted. The artifact has one layer for each of the image, of containerd's type
``application/vnd.erofs.layer.v1+zstd``, with the chain ID of what it shows as an annotation.

A digest of the image says nothing of its referrers: whoever may push to the repository may attach
another image. So they are not taken for a reference with a digest unless that is asked for.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from hyperbox.errors import ImageError
from hyperbox.files import atomic_writer, note_sha256
from hyperbox.storage.artifacts import complete, record
from hyperbox.storage.compression import decompressed
from hyperbox.storage.conversion import Converted, Converter
from hyperbox.storage.erofs import layers_of
from hyperbox.storage.erofs_format import BLOCK_BITS, check_super_block
from hyperbox.storage.images import Image, ImageStore
from hyperbox.storage.ladder import probed
from hyperbox.storage.layer_reading import Layer, chain_ids
from hyperbox.storage.limits import Limits
from hyperbox.storage.oci import EROFS_LAYER, EROFS_TYPES, Descriptor, parse_manifest
from hyperbox.storage.pull import Fetch
from hyperbox.storage.registry import Registry
from hyperbox.storage.rung import Rung
from hyperbox.storage.upload import Upload
from hyperbox.storage.zstd import compress

__all__ = ["CHAIN_ID", "LEVEL", "ReadyImages", "TakeReady", "attach", "checked_layers"]

LEVEL = 9
"""Of zstd, by default: the builder compresses once."""

CHAIN_ID = "hyperbox.chain-id"
"""Annotation of a layer: the chain ID (config.md) of the image's layers up to this one."""

_UNCOMPRESSED = "org.erofs.uncompressed-digest"
_MOST_OFFERS = 8  # referrers of one image that are looked at
_PIECE = 1 << 20
_FRAME = 4 << 20  # bytes of an image in each zstd frame


_Offer = tuple[Descriptor, tuple[Descriptor, ...]]


class TakeReady(StrEnum):
    """The setting ``ready-images``."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


def attach(
    registry: Registry,
    store: ImageStore,
    image: Image,
    limits: Limits | None = None,
    *,
    level: int = LEVEL,
) -> Descriptor:
    """Convert an image that the registry has, and attach it there; return the artifact.

    Parameters
    ----------
    level
        Of zstd, 1 to 19.

    Raises
    ------
    ImageError
        If the registry refuses, or a layer is broken.
    HarnessError
        If the store cannot be written.
    """
    converter = Converter(store.root, limits)
    layers = layers_of(store, image)
    made = converter.convert(layers, Rung.LAYERS)
    upload = Upload(registry)
    with tempfile.TemporaryDirectory(dir=converter.root, prefix=".new-") as directory:
        sent = []
        for chain, path in zip(_chain(layers), made.parts[1:], strict=True):
            blob = Path(directory) / "blob"
            descriptor = _compressed(path, blob, chain, level)
            upload.blob(descriptor, blob)
            blob.unlink()
            sent.append(descriptor)
    return upload.attach(image.descriptor, sent, EROFS_LAYER)


class ReadyImages:
    """Takes ready images where this kernel mounts them.

    Parameters
    ----------
    take
        `TakeReady.AUTO` leaves references with a digest alone; `TakeReady.ON` makes it an error
        if there is none that can be taken.
    """

    def __init__(
        self, store: ImageStore, take: TakeReady = TakeReady.AUTO, limits: Limits | None = None
    ) -> None:
        self._store = store
        self._take = take
        self._limits = limits or Limits()
        self._converter = Converter(store.root, limits)
        self._offers: list[_Offer] = []
        self.refused: list[str] = []
        """Why what was offered was not taken, a line each."""

    def look(self, registry: Registry, manifest: Descriptor) -> None:
        """Note the artifacts that are attached to a manifest and belong to it."""
        self._offers = []
        pinned = bool(registry.reference.digest)
        if self._take is TakeReady.OFF or (pinned and self._take is TakeReady.AUTO):
            return
        try:
            listed = registry.referrers(manifest.digest, EROFS_LAYER)[:_MOST_OFFERS]
        except ImageError as error:
            self.refused.append(f"referrers of {manifest.digest}: {error.message}")
            return
        for offer in listed:
            try:
                found = checked_layers(registry, offer, manifest, EROFS_LAYER)
                if any(CHAIN_ID not in one.annotations for one in found):
                    raise ImageError("it does not say which layers it shows")  # noqa: TRY301
                self._offers.append((offer, found))
            except ImageError as error:
                self.refused.append(f"ready image {offer.digest}: {error.message}")

    def take(self, registry: Registry, image: Image, fetch: Fetch) -> bool:
        """Bring an image as a ready one that `look` has found; return whether it is here.

        Raises
        ------
        ImageError
            With `TakeReady.ON`, if it is not.
        HarnessError
            If the store cannot be written.
        """
        layers = layers_of(self._store, image)
        place = self._converter.image(layers, Rung.LAYERS)
        if self._offers and complete(place.manifest):
            return True
        for offer, found in self._usable():
            try:
                if [one.annotations[CHAIN_ID] for one in found] != _chain(layers):
                    raise ImageError("its layers are not those of the image")  # noqa: TRY301
                self._bring(found, place, fetch)
            except ImageError as error:
                registry.transport.go_on()
                self.refused.append(f"ready image {offer.digest}: {error.message}")
            else:
                return True
        if self._take is TakeReady.ON:
            said = "; ".join(self.refused) or "none is attached to it"
            raise ImageError(f"{image.name} has no ready image to take: {said}")
        return False

    def _usable(self) -> Sequence[_Offer]:
        """Return what was offered if this kernel can mount it."""
        if not self._offers:
            return ()
        self._converter.root.mkdir(parents=True, exist_ok=True)
        why = probed(place=self._converter.root, rungs=(Rung.LAYERS,))[Rung.LAYERS]
        if why:
            self.refused.append(f"ready images cannot be mounted here: {why}")
        return () if why else self._offers

    def _bring(self, found: Sequence[Descriptor], image: Converted, fetch: Fetch) -> None:
        """Fetch the layers and decompress them to where they are mounted from, on record."""
        if sum(one.size for one in found) > self._limits.total_bytes:
            raise ImageError(f"its layers have more than {self._limits.total_bytes} bytes")
        unique = {one.digest: one for one in found}.values()
        fresh = [one for one in unique if not self._store.blobs.has(one)]
        fetch(fresh)
        with self._converter.making(Rung.LAYERS):
            image.parts[0].mkdir(parents=True, exist_ok=True)
            places = zip(found, image.parts[1:], strict=True)
            record(image.manifest, {path: self._decompress(one, path) for one, path in places})
        for one in fresh:  # they are there decompressed
            self._store.blobs.remove(one.digest)

    def _decompress(self, descriptor: Descriptor, path: Path) -> str:
        """Write a layer as it is mounted, verified; return its SHA-256."""
        digest, size, first = hashlib.sha256(), 0, b""
        with self._store.blobs.opened(descriptor) as blob, atomic_writer(path) as stream:
            reader = decompressed(blob, ratio=self._limits.ratio)
            while data := reader.read(_PIECE):
                size += len(data)
                if size > self._limits.total_bytes:
                    raise ImageError(f"a layer has more than {self._limits.total_bytes} bytes")
                if len(first) < 1 << BLOCK_BITS:
                    first += data[: (1 << BLOCK_BITS) - len(first)]
                digest.update(data)
                stream.write(data)
            check_super_block(first, size)
            sha256 = digest.hexdigest()
            if descriptor.annotations.get(_UNCOMPRESSED, f"sha256:{sha256}") != f"sha256:{sha256}":
                raise ImageError(f"{descriptor.digest} decompresses to something else than it says")
        note_sha256(path, sha256)
        return sha256


def _chain(layers: Sequence[Layer]) -> list[str]:
    return [f"sha256:{digits}" for digits in chain_ids(layers)]


def _compressed(path: Path, blob: Path, chain: str, level: int) -> Descriptor:
    """Write a layer's image as zstd frames; return what the artifact says of it."""
    plain, sent, size = hashlib.sha256(), hashlib.sha256(), 0
    with path.open("rb") as image, atomic_writer(blob) as stream:
        while data := image.read(_FRAME):
            frame = compress(data, level)
            plain.update(data)
            sent.update(frame)
            size += len(frame)
            stream.write(frame)
    annotations = {CHAIN_ID: chain, _UNCOMPRESSED: f"sha256:{plain.hexdigest()}"}
    return Descriptor(f"{EROFS_LAYER}+zstd", f"sha256:{sent.hexdigest()}", size, annotations)


def checked_layers(
    registry: Registry, offer: Descriptor, manifest: Descriptor, kind: str
) -> tuple[Descriptor, ...]:
    """Return the layers of an artifact of a type that belongs to a manifest.

    Raises
    ------
    ImageError
        If it does not, or cannot be had.
    """
    _, data = registry.manifest(offer.digest)
    found = parse_manifest(data, f"artifact {offer.digest}")
    if found.subject is None or found.subject.digest != manifest.digest:
        raise ImageError("it belongs to another image")
    if found.artifact_type != kind:
        raise ImageError(f"its type is {found.artifact_type[:200]!r}")
    for one in found.layers:
        if one.media_type not in EROFS_TYPES:
            raise ImageError(f"it has a layer of the type {one.media_type[:200]!r}")
    return found.layers
