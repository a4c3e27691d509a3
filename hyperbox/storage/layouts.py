"""Images in files: OCI layouts and what ``docker save`` writes, to and from the store.

Follows image-layout.md of the OCI image specification, and Docker's image specification 1.2
("Combined Image JSON + Filesystem Changeset Format"): ``manifest.json`` names configuration and
layers, which are usually plain tar files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from hyperbox.errors import ConfigError, ImageError
from hyperbox.storage.archives import (
    Archive,
    Sink,
    directory_sink,
    open_archive,
    read_document,
    tar_sink,
)
from hyperbox.storage.digests import digest_of, hexadecimal, new_hash
from hyperbox.storage.documents import Fields, parse_document
from hyperbox.storage.images import NAME, Image, ImageStore
from hyperbox.storage.oci import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Descriptor,
    Index,
    Manifest,
    encode,
    parse_config,
    parse_index,
    parse_manifest,
    parse_manifest_or_index,
)
from hyperbox.storage.platforms import Platform, machine_platform
from hyperbox.storage.pull import Progress, Silent
from hyperbox.storage.reference import Reference, parse_reference

__all__ = ["FORMATS", "export_image", "import_docker_archive", "import_layout"]

FORMATS = ("oci", "oci-archive", "docker-archive")
"""What an image is exported as: a directory, a tar file of it, or what ``docker load`` reads."""
_CONTAINERD_NAME = "io.containerd.image.name"
_BLOCK = 1 << 20
_COMPRESSED = {b"\x1f\x8b": OCI_LAYER_GZIP, b"\x28\xb5\x2f\xfd": OCI_LAYER_ZSTD}
_LAYOUT = b'{"imageLayoutVersion": "1.0.0"}'
_MOST_NESTED = 3


def import_layout(
    path: Path,
    store: ImageStore,
    *,
    wanted: str = "",
    name: str = "",
    platform: Platform | None = None,
    progress: Progress | None = None,
) -> Image:
    """Bring an image of an OCI layout, a directory or a tar file of one, into the store.

    Parameters
    ----------
    wanted
        Its name in the layout; empty if there is only one.
    name
        What the store calls it; empty for its name in the layout.

    Raises
    ------
    ConfigError
        If it is not clear which image is meant, or what it is to be called.
    ImageError
        If it is damaged.
    """
    with open_archive(path) as archive, store.in_use():
        index = parse_index(read_document(archive, "index.json", f"{path}: index.json"))
        entry = _chosen(index, wanted, path)
        reference = _reference(name or _name(entry, path))
        descriptor, data = _manifest(archive, entry, platform or machine_platform())
        manifest = parse_manifest(data, f"manifest {descriptor.digest}")
        shown = progress or Silent()
        for blob in manifest.blobs:
            _copy(archive, _blob(blob.digest), blob, store, shown)
        return _kept(store, reference, descriptor, data)


def import_docker_archive(
    path: Path,
    store: ImageStore,
    *,
    wanted: str = "",
    name: str = "",
    progress: Progress | None = None,
) -> Image:
    """Bring an image of a ``docker save`` archive into the store; as `import_layout`."""
    with open_archive(path) as archive, store.in_use():
        what = f"{path}: manifest.json"
        text = b'{"images": ' + read_document(archive, "manifest.json", what) + b"}"
        entry = _tagged(parse_document(text, what).children("images"), wanted, path)
        tags = entry.texts("RepoTags")
        reference = _reference(name or wanted or (tags[0] if tags else ""))
        config = read_document(archive, entry.text("Config"), f"{path}: configuration")
        diff_ids = parse_config(config).diff_ids
        layers = entry.texts("Layers")
        if len(layers) != len(diff_ids):
            raise ImageError(f"{what}: {len(layers)} layers, but {len(diff_ids)} diffIDs")
        descriptors = []
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            descriptors.append(_described(archive, layer, diff_id))
            _copy(archive, layer, descriptors[-1], store, progress or Silent())
        manifest = Manifest(store.blobs.add(config, OCI_CONFIG), tuple(descriptors))
        data = encode(manifest)
        found = Descriptor(manifest.media_type, digest_of(data), len(data))
        return _kept(store, reference, found, data)


def export_image(image: Image, store: ImageStore, path: Path, form: str) -> None:
    """Write an image as one of `FORMATS`; the same image, the same bytes.

    Raises
    ------
    ImageError
        If the image is damaged.
    HarnessError
        If it cannot be written.
    """
    made: AbstractContextManager[Sink]
    made = directory_sink(path) if form == "oci" else tar_sink(path)
    with store.in_use(), made as sink:
        for descriptor in image.manifest.blobs:
            store.blobs.verify(descriptor)
            sink.add(_blob(descriptor.digest), descriptor.size, _blocks(store, descriptor))
        manifest = store.blobs.read_document(image.descriptor)
        sink.add(_blob(image.descriptor.digest), len(manifest), [manifest])
        if form == "docker-archive":
            document = json.dumps(_docker_manifest(image)).encode()
            sink.add("manifest.json", len(document), [document])
        else:
            named = replace(image.descriptor, annotations={NAME: image.name})
            index = encode(Index((named,)))
            sink.add("index.json", len(index), [index])
            sink.add("oci-layout", len(_LAYOUT), [_LAYOUT])


def _docker_manifest(image: Image) -> list[dict[str, object]]:
    tags = [image.name] if "@" not in image.name else []
    layers = [_blob(one.digest) for one in image.manifest.layers]
    return [{"Config": _blob(image.manifest.config.digest), "RepoTags": tags, "Layers": layers}]


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _blocks(store: ImageStore, descriptor: Descriptor) -> Iterator[bytes]:
    with store.blobs.opened(descriptor) as stream:
        while block := stream.read(_BLOCK):
            yield block


def _kept(store: ImageStore, reference: Reference, descriptor: Descriptor, data: bytes) -> Image:
    store.blobs.put(descriptor, data)
    manifest, config = store.load(descriptor)
    if len(config.diff_ids) != len(manifest.layers):
        raise ImageError(f"{reference}: its configuration is for another number of layers")
    store.tag(reference, descriptor)
    return Image(str(reference), descriptor, manifest, config)


def _copy(
    archive: Archive, name: str, descriptor: Descriptor, store: ImageStore, progress: Progress
) -> None:
    progress.begin(descriptor)
    with store.blobs.incoming(descriptor) as sink:
        if sink is not None:
            sink.restart()
            with archive.open(name) as (stream, size):
                if size != descriptor.size:
                    raise ImageError(f"{name[:200]} has {size} bytes, not {descriptor.size}")
                while block := stream.read(_BLOCK):
                    sink.append(block)
                    progress.at(descriptor, sink.size)
    progress.at(descriptor, descriptor.size)


def _described(archive: Archive, name: str, diff_id: str) -> Descriptor:
    """Return a layer's descriptor: a plain tar has its diffID, of others the bytes are hashed."""
    with archive.open(name) as (stream, size):
        start = stream.read(4)
        kind = next((k for magic, k in _COMPRESSED.items() if start.startswith(magic)), OCI_LAYER)
        if kind == OCI_LAYER:
            return Descriptor(kind, diff_id, size)
        found = hashlib.sha256(start)
        while block := stream.read(_BLOCK):
            found.update(block)
    return Descriptor(kind, f"sha256:{found.hexdigest()}", size)


def _chosen(index: Index, wanted: str, path: Path) -> Descriptor:
    images = [one for one in index.manifests if one.is_image]
    named = [one for one in images if wanted in _names(one)] if wanted else images
    if len(named) == 1:
        return named[0]
    known = sorted({name for one in images for name in _names(one)})
    what = f"no image {wanted!r}" if wanted else f"{len(images)} images"
    raise ConfigError(
        f"{path} has {what}", hint=f"oci:{path}:NAME with one of: {', '.join(known) or 'no names'}"
    )


def _names(entry: Descriptor) -> tuple[str, ...]:
    found = (entry.annotations.get(key, "") for key in (_CONTAINERD_NAME, NAME))
    return tuple(name for name in found if name)


def _name(entry: Descriptor, path: Path) -> str:
    """Return what a layout's image is to be called: a bare tag is one of the layout's name."""
    for name in _names(entry):
        if "/" in name or ":" in name:
            return name
    place = re.sub("[^a-z0-9]+", "-", path.resolve().name.removesuffix(".tar").lower()).strip("-")
    tag = next(iter(_names(entry)), "latest")
    return f"{place}:{tag}"


def _reference(text: str) -> Reference:
    try:
        return parse_reference(text)
    except ConfigError as error:
        raise ConfigError(error.message, hint="--name says what it is to be called") from None


def _manifest(archive: Archive, entry: Descriptor, platform: Platform) -> tuple[Descriptor, bytes]:
    """Return the manifest that an entry leads to, through indexes, verified."""
    for _ in range(_MOST_NESTED):
        data = read_document(archive, _blob(entry.digest), f"manifest {entry.digest}")
        digest = new_hash(entry.digest)
        digest.update(data)
        if digest.hexdigest() != hexadecimal(entry.digest):
            raise ImageError(f"manifest {entry.digest}: the content does not have this digest")
        found = parse_manifest_or_index(data, f"manifest {entry.digest}")
        if isinstance(found, Manifest):
            return Descriptor(found.media_type, entry.digest, len(data)), data
        entry = found.select(platform)
    raise ImageError(f"more than {_MOST_NESTED} indexes in each other")


def _tagged(entries: tuple[Fields, ...], wanted: str, path: Path) -> Fields:
    known = [tag for entry in entries for tag in entry.texts("RepoTags")]
    named = [one for one in entries if wanted in one.texts("RepoTags")] if wanted else entries
    if len(named) == 1:
        return named[0]
    what = f"no image {wanted!r}" if wanted else f"{len(entries)} images"
    raise ConfigError(
        f"{path} has {what}",
        hint=f"docker-archive:{path}:NAME with one of: {', '.join(known) or 'no names'}",
    )
