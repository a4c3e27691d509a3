"""Lazy images that their builder has attached: one EROFS image in chunks as a referrer.

All layers of an image are merged into one, made once by who pushes. The artifact has the type of
its one layer, `ARTIFACT`; the ready images of `hyperbox.storage.ready_image` come whole.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from hyperbox.errors import ImageError, KernelFeatureMissing
from hyperbox.storage.conversion import Converter
from hyperbox.storage.erofs import layers_of
from hyperbox.storage.images import Image, ImageStore
from hyperbox.storage.lazy.layer_writer import CHUNK_SIZE, write_layer
from hyperbox.storage.limits import Limits
from hyperbox.storage.oci import EROFS_IMAGE, EROFS_TYPES, Descriptor, Manifest
from hyperbox.storage.pull import Fetch
from hyperbox.storage.ready_image import LEVEL, checked_layers
from hyperbox.storage.registry import Registry
from hyperbox.storage.upload import Upload

__all__ = ["ARTIFACT", "LazyImages", "attach_lazy", "lazy_layer"]

ARTIFACT = f"{EROFS_IMAGE}+zstd"
"""Type of the artifact and of its layer (draft EROFS image layer specification)."""


def attach_lazy(
    registry: Registry,
    store: ImageStore,
    image: Image,
    limits: Limits | None = None,
    *,
    level: int = LEVEL,
    chunk_size: int = CHUNK_SIZE,
) -> Descriptor:
    """Merge an image that the registry has into one in chunks, and attach it; return the artifact.

    Parameters
    ----------
    level
        Of zstd, 1 to 19.
    chunk_size
        Bytes of the image that are fetched at a time.

    Raises
    ------
    ImageError
        If the registry refuses, or a layer is broken.
    HarnessError
        If the store cannot be written.
    """
    converter, upload = Converter(store.root, limits), Upload(registry)
    converter.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=converter.root, prefix=".new-") as directory:
        plain, blob = Path(directory) / "plain", Path(directory) / "blob"
        converter.write_plain(layers_of(store, image), plain)
        made = write_layer(plain, blob, level=level, chunk_size=chunk_size)
        layer = Descriptor(made.media_type, made.digest, made.size, annotations=made.annotations)
        upload.blob(layer, blob)
    return upload.attach(image.descriptor, (layer,), ARTIFACT)


def lazy_layer(
    registry: Registry, image: Descriptor, manifest: Manifest, *, pinned: bool = False
) -> Descriptor:
    """Return the one layer that is all of an image: its own, or that of what is attached to it.

    Parameters
    ----------
    pinned
        Whether what is attached is taken for a reference with a digest, which does not name it.

    Raises
    ------
    ImageError
        If there is none.
    """
    if len(manifest.layers) == 1 and manifest.layers[0].media_type in EROFS_TYPES:
        return manifest.layers[0]
    hint = "its builder attaches one: hyperbox push --attach-lazy; or pull it whole"
    if registry.reference.digest and not pinned:
        raise ImageError(
            f"{registry.reference} has a digest, which does not cover what is attached to it",
            hint="name it by its tag, or take it all the same: --ready-images on",
        )
    refused = []
    for offer in registry.referrers(image.digest, ARTIFACT):
        try:
            (layer,) = checked_layers(registry, offer, image, ARTIFACT)
        except (ImageError, ValueError) as error:
            refused.append(f"; {offer.digest}: {error}")
        else:
            return layer
    raise ImageError(
        f"{registry.reference} has no image to be loaded lazily{''.join(refused)}", hint=hint
    )


class LazyImages:
    """Brings images by mounting them lazily, as `hyperbox.storage.pull.Instead` says.

    Parameters
    ----------
    mount
        Mounts an image, of which it gets the layer; KernelFeatureMissing has it brought whole.
    pinned
        As `lazy_layer` says.
    """

    def __init__(self, mount: Callable[[Image, Descriptor], None], *, pinned: bool = False) -> None:
        self._mount = mount
        self._pinned = pinned
        self.refused = ""
        """Why an image was brought whole: what each mechanism of the kernel answered."""

    def look(self, registry: Registry, manifest: Descriptor) -> None:
        """Ask for nothing yet: an image may be lazy itself."""

    def take(self, registry: Registry, image: Image, fetch: Fetch) -> bool:
        """Mount the image; False where the kernel cannot, ImageError if there is no lazy one."""
        layer = lazy_layer(registry, image.descriptor, image.manifest, pinned=self._pinned)
        try:
            self._mount(image, layer)
        except KernelFeatureMissing as missing:
            self.refused = missing.message
        return not self.refused
