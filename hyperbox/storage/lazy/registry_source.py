"""A blob in a registry, read a range at a time with the registry client's tokens and redirects."""

from __future__ import annotations

from hyperbox.errors import HyperboxError
from hyperbox.storage.lazy.chunk_source import SourceFailed
from hyperbox.storage.oci import Descriptor
from hyperbox.storage.pull import PullOptions, connect
from hyperbox.storage.reference import Reference

__all__ = ["RegistrySource"]


class RegistrySource:
    """As `hyperbox.storage.lazy.chunk_source.ChunkSource` says."""

    def __init__(
        self, reference: Reference, digest: str, size: int, options: PullOptions | None = None
    ) -> None:
        self._blob = Descriptor("", digest, size)
        self._reference = reference
        self._registry = connect(reference, options or PullOptions())

    @classmethod
    def name_of(
        cls, reference: Reference, blob: Descriptor, *, plain_http: bool | None = None
    ) -> str:
        """Return what a record calls it; `hyperbox.storage.lazy.source_name` reads that."""
        kind = "registry+http" if plain_http else "registry"
        return f"{kind}:{blob.size}:{reference.name}@{blob.digest}"

    @property
    def name(self) -> str:
        """Return registry, repository and digest."""
        return f"{self._reference.name}@{self._blob.digest}"

    def read(self, offset: int, length: int) -> bytes:
        """Return a range."""
        try:
            data = self._registry.read(self._blob, offset, offset + length)
        except (HyperboxError, ValueError) as error:
            raise SourceFailed(f"{self.name}: {error}") from error
        if len(data) != length:
            raise SourceFailed(f"{self.name}: {len(data)} bytes came of {length}")
        return data
