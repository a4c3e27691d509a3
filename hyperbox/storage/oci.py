"""Images as values: descriptors, manifests, indexes and configurations. Pure.

Follows the OCI image specification 1.1 (descriptor.md, manifest.md, image-index.md, config.md),
and Docker's image manifest version 2, schema 2, which has the same fields under other media
types. What is parsed here came from others: every field has its type, digests can be verified,
and a document is of one kind only (CVE-2021-41190: one that was manifest and index at once).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hyperbox.errors import ImageError
from hyperbox.storage.digests import check_digest, digest_of
from hyperbox.storage.documents import Fields, parse_document
from hyperbox.storage.platforms import Platform

__all__ = [
    "DOCKER_CONFIG",
    "DOCKER_INDEX",
    "DOCKER_LAYER",
    "DOCKER_LAYER_GZIP",
    "DOCKER_MANIFEST",
    "EMPTY",
    "EROFS_IMAGE",
    "EROFS_LAYER",
    "EROFS_TYPES",
    "INDEXES",
    "MANIFESTS",
    "OCI_CONFIG",
    "OCI_EMPTY",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_LAYER_GZIP",
    "OCI_LAYER_ZSTD",
    "OCI_MANIFEST",
    "Descriptor",
    "ImageConfig",
    "Index",
    "Manifest",
    "encode",
    "parse_config",
    "parse_index",
    "parse_manifest",
    "parse_manifest_or_index",
]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
OCI_LAYER_ZSTD = f"{OCI_LAYER}+zstd"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = f"{DOCKER_LAYER}.gzip"
EROFS_LAYER = "application/vnd.erofs.layer.v1"
"""A layer that is an EROFS image, as containerd's erofs snapshotter and differ take it."""
EROFS_IMAGE = "application/vnd.erofs"
"""An EROFS image in chunks, of the draft EROFS image layer specification."""
EROFS_TYPES = tuple(f"{one}{zstd}" for one in (EROFS_IMAGE, EROFS_LAYER) for zstd in ("", "+zstd"))
"""Types of layers that are EROFS images."""

MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_INDEX)
_ATTESTATION = "vnd.docker.reference.type"  # annotation of BuildKit's attestation manifests
_FIELDS = ("mediaType", "digest", "size", "urls", "annotations", "platform", "artifactType")


@dataclass(frozen=True)
class Descriptor:
    """What content is called, what it is, and how many bytes it has.

    Parameters
    ----------
    urls
        Other places to get it from; only foreign layers of Windows images have them.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether it can be an image to run: not an attestation and not an artifact."""
        known = self.platform is None or self.platform.is_known
        return known and not self.artifact_type and _ATTESTATION not in self.annotations

    def as_json(self) -> dict[str, object]:
        """Return it as documents have it."""
        found: dict[str, object] = {"mediaType": self.media_type}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        found |= {"digest": self.digest, "size": self.size}
        if self.urls:
            found["urls"] = list(self.urls)
        if self.annotations:
            found["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform is not None:
            found["platform"] = _platform_json(self.platform)
        return found


EMPTY = Descriptor(OCI_EMPTY, digest_of(b"{}"), 2)
"""Descriptor of the empty object ``{}``, configuration of artifacts that have none."""


@dataclass(frozen=True)
class Manifest:
    """One image for one platform, or an artifact.

    Parameters
    ----------
    subject
        The manifest that an artifact belongs to.
    """

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Return configuration and layers, each content once."""
        return tuple({one.digest: one for one in (self.config, *self.layers)}.values())

    def as_json(self) -> dict[str, object]:
        """Return the document."""
        found = _head(self.media_type, self.artifact_type)
        found["config"] = self.config.as_json()
        found["layers"] = [one.as_json() for one in self.layers]
        return found | _tail(self.subject, self.annotations)


@dataclass(frozen=True)
class Index:
    """Several manifests: one image for several platforms, or whatever a layout holds."""

    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def select(self, wanted: Platform) -> Descriptor:
        """Return the manifest for a machine, the first of the best.

        Attestations and artifacts do not count. A single entry without a platform is taken as it
        is: its configuration says what it is for.

        Raises
        ------
        ImageError
            If there is none; the hint names the platforms that there are.
        """
        images = [one for one in self.manifests if one.is_image]
        ranked = [(one.platform.rank(wanted), one) for one in images if one.platform is not None]
        best = max((rank for rank, _ in ranked), default=0)
        if best:
            return next(one for rank, one in ranked if rank == best)
        if len(images) == 1 and images[0].platform is None:
            return images[0]
        known = sorted({str(one.platform) for one in images if one.platform is not None})
        raise ImageError(
            f"no image for {wanted}", hint=f"there is: {', '.join(known[:20]) or 'none'}"
        )

    def as_json(self) -> dict[str, object]:
        """Return the document."""
        found = _head(self.media_type, self.artifact_type)
        found["manifests"] = [one.as_json() for one in self.manifests]
        return found | _tail(self.subject, self.annotations)


@dataclass(frozen=True)
class ImageConfig:
    """What an image's configuration says about running it, and its layers' contents.

    Parameters
    ----------
    diff_ids
        Digests of the layers' uncompressed tar streams, the lowest layer first.
    """

    platform: Platform
    diff_ids: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    directory: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return what runs where the user names no command."""
        return self.entrypoint + self.command


def encode(document: Manifest | Index) -> bytes:
    """Return the bytes of a document of ours: the same value, the same bytes, the same digest."""
    return json.dumps(document.as_json(), separators=(",", ":"), ensure_ascii=False).encode()


def parse_manifest(data: bytes, what: str = "manifest", media_type: str = "") -> Manifest:
    """Return the manifest in `data`; as `parse_manifest_or_index`."""
    found = parse_manifest_or_index(data, what, media_type)
    if not isinstance(found, Manifest):
        raise ImageError(f"{what} is an index; a manifest is expected")
    return found


def parse_index(data: bytes, what: str = "index", media_type: str = "") -> Index:
    """Return the index in `data`; as `parse_manifest_or_index`."""
    found = parse_manifest_or_index(data, what, media_type)
    if not isinstance(found, Index):
        raise ImageError(f"{what} is a manifest; an index is expected")
    return found


def parse_manifest_or_index(
    data: bytes, what: str = "manifest", media_type: str = ""
) -> Manifest | Index:
    """Return the manifest or index in `data`.

    Parameters
    ----------
    what
        What the document is, for errors.
    media_type
        What whoever named it says it is; empty if nobody did.

    Raises
    ------
    ImageError
        If it is neither or both, or another kind than `media_type`, or of Docker's schema 1.
    """
    fields = parse_document(data, what)
    fields.distinct("mediaType", "artifactType", "config", "layers", "manifests", "subject")
    if fields.whole("schemaVersion", 0) != 2:
        raise ImageError(
            f"{what} is not of schema version 2", hint="push the image anew with a current tool"
        )
    own = fields.text("mediaType") or media_type
    if media_type and own != media_type:
        raise ImageError(f"{what} says it is {own[:200]!r}, and was said to be {media_type!r}")
    is_index, is_manifest = "manifests" in fields, "layers" in fields or "config" in fields
    if is_index == is_manifest:
        raise ImageError(f"{what} is both an index and a manifest, or neither")
    if own and own not in (INDEXES if is_index else MANIFESTS):
        raise ImageError(f"{what} has the wrong media type {own[:200]!r}")
    if is_index:
        return _index(fields, own or OCI_INDEX)
    return _manifest(fields, own or OCI_MANIFEST)


def parse_config(data: bytes, what: str = "configuration") -> ImageConfig:
    """Return an image's configuration.

    Raises
    ------
    ImageError
        If it is not a configuration of an image.
    """
    fields = parse_document(data, what)
    fields.distinct("architecture", "os", "rootfs", "config")
    rootfs = fields.child("rootfs")
    if rootfs is None or rootfs.text("type") != "layers":
        raise ImageError(f"{what} has no list of layers")
    run = fields.child("config") or Fields({}, what)
    return ImageConfig(
        platform=_platform(fields),
        diff_ids=tuple(check_digest(one, rootfs.where) for one in rootfs.texts("diff_ids")),
        entrypoint=run.texts("Entrypoint"),
        command=run.texts("Cmd"),
        environment=run.texts("Env"),
        directory=run.text("WorkingDir"),
        user=run.text("User"),
        labels=run.mapping("Labels"),
        created=fields.text("created"),
    )


def _manifest(fields: Fields, media_type: str) -> Manifest:
    config = fields.child("config")
    if config is None:
        raise ImageError(f"{fields.where} has no configuration")
    return Manifest(
        config=_descriptor(config),
        layers=_descriptors(fields.children("layers")),
        media_type=media_type,
        artifact_type=fields.text("artifactType"),
        subject=_subject(fields),
        annotations=fields.mapping("annotations"),
    )


def _index(fields: Fields, media_type: str) -> Index:
    return Index(
        manifests=_descriptors(fields.children("manifests")),
        media_type=media_type,
        artifact_type=fields.text("artifactType"),
        subject=_subject(fields),
        annotations=fields.mapping("annotations"),
    )


def _subject(fields: Fields) -> Descriptor | None:
    subject = fields.child("subject")
    return None if subject is None else _descriptor(subject)


def _descriptors(found: Sequence[Fields]) -> tuple[Descriptor, ...]:
    return tuple(_descriptor(one) for one in found)


def _descriptor(fields: Fields) -> Descriptor:
    fields.distinct(*_FIELDS)
    platform = fields.child("platform")
    return Descriptor(
        media_type=fields.text("mediaType"),
        digest=check_digest(fields.text("digest"), fields.where),
        size=fields.whole("size"),
        annotations=fields.mapping("annotations"),
        platform=None if platform is None else _platform(platform),
        artifact_type=fields.text("artifactType"),
        urls=fields.texts("urls"),
    )


def _platform(fields: Fields) -> Platform:
    return Platform(
        os=fields.text("os"),
        architecture=fields.text("architecture"),
        variant=fields.text("variant"),
        os_version=fields.text("os.version"),
        os_features=fields.texts("os.features"),
    )


def _platform_json(platform: Platform) -> dict[str, object]:
    found: dict[str, object] = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        found["variant"] = platform.variant
    if platform.os_version:
        found["os.version"] = platform.os_version
    if platform.os_features:
        found["os.features"] = list(platform.os_features)
    return found


def _head(media_type: str, artifact_type: str) -> dict[str, object]:
    found: dict[str, object] = {"schemaVersion": 2, "mediaType": media_type}
    if artifact_type:
        found["artifactType"] = artifact_type
    return found


def _tail(subject: Descriptor | None, annotations: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    if subject is not None:
        found["subject"] = subject.as_json()
    if annotations:
        found["annotations"] = dict(sorted(annotations.items()))
    return found
