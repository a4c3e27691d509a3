"""From what a record calls a source to the source: a URL, a path, a registry's blob."""

from __future__ import annotations

import re
from pathlib import Path

from hyperbox.errors import ConfigError
from hyperbox.storage.lazy.chunk_source import ChunkSource, FileSource, HttpSource
from hyperbox.storage.reference import parse_reference

__all__ = ["source_named"]

_BLOB = re.compile(
    r"registry(?P<plain>\+http)?:(?P<size>[0-9]{1,18}):(?P<image>[^@]+)@(?P<digest>[a-z0-9:]+)"
)


def source_named(name: str) -> ChunkSource:
    """Return the source that a record names.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if name.startswith(("http://", "https://")):
        return HttpSource(name)
    if name.startswith("/"):
        return FileSource(Path(name))
    match = _BLOB.fullmatch(name)
    if match is None:
        raise ConfigError(f"{name[:200]!r} is not a source of a layer")
    # Its packages are an extra, and the other sources do without.
    from hyperbox.storage.lazy.registry_source import RegistrySource  # noqa: PLC0415
    from hyperbox.storage.pull import PullOptions  # noqa: PLC0415
    from hyperbox.storage.transport import Options  # noqa: PLC0415

    options = PullOptions(transport=Options(plain_http=True if match["plain"] else None))
    reference, size = parse_reference(match["image"]), int(match["size"])
    return RegistrySource(reference, match["digest"], size, options)
