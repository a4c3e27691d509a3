"""The store of images: an OCI image layout, so that other tools can read it, and its names.

Layout below the root (default `ROOT`), as image-layout.md of the OCI image specification::

    oci-layout                  its version
    index.json                  manifests by name: annotation org.opencontainers.image.ref.name
    blobs/sha256/DIGITS         manifests, configurations, layers
    partial/                    what is on its way (`hyperbox.storage.blobs`)
    names.lock, use.lock        flock(2): of index.json; of pulls (shared) and `prune` (exclusive)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.files import locked, write_bytes
from hyperbox.foreign import read_bytes
from hyperbox.storage.blobs import Blobs
from hyperbox.storage.oci import (
    INDEXES,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    encode,
    parse_config,
    parse_index,
    parse_manifest,
)
from hyperbox.storage.reference import Reference, parse_reference

__all__ = ["NAME", "ROOT", "Image", "ImageStore", "Pruned"]

ROOT = Path("/var/lib/hyperbox/images")
NAME = "org.opencontainers.image.ref.name"
_LAYOUT = b'{"imageLayoutVersion": "1.0.0"}\n'
_INDEX = "index.json"
_LEAST_DIGITS = 6  # of a digest, to name an image


@dataclass(frozen=True)
class Image:
    """An image of the store.

    Parameters
    ----------
    name
        In full, as `str` of a `Reference` returns it.
    descriptor
        Of its manifest.
    """

    name: str
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig

    @property
    def size(self) -> int:
        """Bytes of manifest, configuration and layers as they are stored."""
        return self.descriptor.size + sum(one.size for one in self.manifest.blobs)


@dataclass(frozen=True)
class Pruned:
    """What was removed: blobs and unfinished downloads, and their bytes."""

    files: int
    size: int


class ImageStore:
    """A store; made when the first image comes."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.blobs = Blobs(root)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep `prune` away for the block: while blobs are added that have no name yet."""
        with self._use_lock(fcntl.LOCK_SH):
            yield

    def names(self) -> dict[str, Descriptor]:
        """Return the manifests by name, sorted."""
        found = {one.annotations[NAME]: one for one in self._index().manifests}
        return dict(sorted(found.items()))

    def find(self, text: str) -> Image:
        """Return an image; as `named`.

        Raises
        ------
        ImageError
            If it is damaged.
        """
        name = self.named(text)
        return self._image(name, self.names()[name])

    def named(self, text: str) -> str:
        """Return an image's full name by its name, or by six or more digits of its digest.

        Raises
        ------
        ConfigError
            If there is no such image.
        """
        names = self.names()
        with contextlib.suppress(ConfigError):
            full = str(parse_reference(text))
            if full in names:
                return full
        digits = text.removeprefix("sha256:")
        if len(digits) >= _LEAST_DIGITS:
            for name, one in names.items():
                if one.digest.partition(":")[2].startswith(digits):
                    return name
        raise ConfigError(
            f"no image is called {text[:200]!r} in {self.root}",
            hint="'hyperbox images list' shows them, 'hyperbox pull' gets one",
        )

    def images(self) -> Iterator[Image]:
        """Return every image; ImageError at one that is damaged."""
        for name, descriptor in self.names().items():
            yield self._image(name, descriptor)

    def tag(self, reference: Reference, descriptor: Descriptor) -> None:
        """Let a name mean a manifest whose blobs are all there.

        Raises
        ------
        HarnessError
            If the store cannot be written.
        """
        named = replace(descriptor, annotations={NAME: str(reference)}, platform=None)
        self._change(str(reference), (named,))

    def untag(self, name: str) -> None:
        """Forget a name; `prune` removes what has none."""
        self._change(name, ())

    def load(self, descriptor: Descriptor) -> tuple[Manifest, ImageConfig]:
        """Return a manifest and its configuration, verified."""
        data = self.blobs.read_document(descriptor)
        manifest = parse_manifest(data, f"manifest {descriptor.digest}")
        config = self.blobs.read_document(manifest.config)
        return manifest, parse_config(config, f"configuration {manifest.config.digest}")

    def prune(self) -> Pruned:
        """Remove the blobs that no name leads to, and downloads that nobody goes on with.

        Raises
        ------
        HarnessError
            If images are being pulled.
        """
        with self._use_lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            kept = set(self._reachable(self.names().values()))
            gone = [(d, size) for d, size in self.blobs.digests() if d not in kept]
            for digest, _ in gone:
                self.blobs.remove(digest)
            sizes = [size for _, size in gone]
            with contextlib.suppress(FileNotFoundError):
                for entry in os.scandir(self.root / "partial"):
                    sizes.append(entry.stat(follow_symlinks=False).st_size)
                    Path(entry.path).unlink()
        return Pruned(len(sizes), sum(sizes))

    def _reachable(self, descriptors: Iterable[Descriptor]) -> Iterator[str]:
        for descriptor in descriptors:
            yield descriptor.digest
            if descriptor.media_type in INDEXES:
                continue
            data = self.blobs.read_document(descriptor)
            yield from (one.digest for one in parse_manifest(data, descriptor.digest).blobs)

    def _image(self, name: str, descriptor: Descriptor) -> Image:
        return Image(name, descriptor, *self.load(descriptor))

    def _index(self) -> Index:
        path = self.root / _INDEX
        if not path.exists():
            return Index(())
        data = read_bytes(path, refusal=ConfigError)
        found = parse_index(data, str(path))
        named = tuple(one for one in found.manifests if one.annotations.get(NAME))
        return replace(found, manifests=named)

    def _change(self, name: str, new: tuple[Descriptor, ...]) -> None:
        with locked(self.root / "names.lock"):
            others = (o for o in self._index().manifests if o.annotations[NAME] != name)
            if not (self.root / "oci-layout").exists():
                write_bytes(self.root / "oci-layout", _LAYOUT)
            write_bytes(self.root / _INDEX, encode(Index((*others, *new))))

    @contextlib.contextmanager
    def _use_lock(self, kind: int) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.root / "use.lock", kind))
            except HarnessError as error:
                if not isinstance(error.__cause__, BlockingIOError):
                    raise
                raise HarnessError(
                    f"{self.root}: images are being pulled", hint="prune when they are there"
                ) from None
            yield
