"""The image of a pull as one that is loaded lazily: published, and mounted before it is here.

It is what a builder would attach to an image once: the merged EROFS image in zstd chunks with its
index. The pull is manifest, index and mount; data comes with the reads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing
from hyperbox.files import write_bytes
from hyperbox.storage.conversion import Converter
from hyperbox.storage.layer_reading import Layer
from hyperbox.storage.lazy.content_cache import ContentCache
from hyperbox.storage.lazy.layer_writer import write_layer
from hyperbox.storage.lazy.lazy_mounts import LazyMounts
from hyperbox.storage.lazy.mechanism import Mechanism, choose_mechanism
from hyperbox.storage.lazy.mount_record import LayerRecord
from hyperbox.storage.lazy.registry_source import RegistrySource
from hyperbox.storage.lazy.remote_index import fetch_index
from hyperbox.storage.oci import EMPTY, OCI_MANIFEST, Descriptor, Manifest, encode, parse_manifest
from hyperbox.storage.pull import PullOptions, connect
from hyperbox.storage.reference import Reference
from hyperbox.storage.upload import Upload

__all__ = ["lazily_mounted", "publish"]

_NAME = "image"
_CHUNK = 256 << 10  # bytes; the default of 1 MiB would be most of so small an image


def publish(
    reference: Reference, layers: Sequence[Layer], options: PullOptions, scratch: Path
) -> None:
    """Convert layers to one EROFS image, and put it into the registry under a tag of its own."""
    image, path, empty = (scratch / name for name in ("plain", "chunked", "empty"))
    Converter(scratch / "conversion").write_plain(layers, image)
    made = write_layer(image, path, chunk_size=_CHUNK)
    write_bytes(empty, b"{}")
    upload = Upload(connect(reference, options, actions="pull,push"))
    layer = Descriptor(made.media_type, made.digest, made.size, made.annotations)
    upload.blob(layer, path)
    upload.blob(EMPTY, empty)
    manifest = Manifest(EMPTY, (layer,), artifact_type=made.media_type)
    upload.manifest(encode(manifest), OCI_MANIFEST, reference.tag)


@contextlib.contextmanager
def lazily_mounted(
    reference: Reference, disk: Path, point: Path, options: PullOptions
) -> Iterator[Mechanism]:
    """Mount the image that `publish` has put there for the block; yield how it is served.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no mechanism that fails closed.
    """
    _, data = connect(reference, options).manifest()
    (layer,) = parse_manifest(data).layers

    def source(_name: str) -> RegistrySource:
        return RegistrySource(reference, layer.digest, layer.size, options)

    index = fetch_index(source(""), layer.annotations, layer.size, framed=True)
    record = LayerRecord(index.key, index.stored, ("registry",))
    mounts = LazyMounts(disk / "state", ContentCache(disk / "cache"), source)

    def attempt(mechanism: Mechanism) -> str:
        try:
            mounts.mount(_NAME, point, record, index.payload, mechanism)
        except KernelFeatureMissing as missing:
            return missing.message
        return ""

    try:
        closed = (Mechanism.FSCACHE, Mechanism.FILE, Mechanism.LOOP)
        yield choose_mechanism(attempt, closed).mechanism
        mounts.unmount(_NAME)
    finally:
        mounts.stop()
