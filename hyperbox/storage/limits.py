"""How much a layer may ask for, so that a hostile one costs little before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Largest numbers of everything that a layer may have.

    Parameters
    ----------
    ratio
        Most bytes that a layer decompresses to for each of its own, once it has 64 MiB.
    entries
        Most entries of a layer.
    depth
        Most directories in each other.
    total_bytes
        Largest size of all files together, holes included: hashing a hole takes time, too.
    path_bytes
        Longest path, and target of a link: Linux's PATH_MAX without the NUL.
    header_bytes
        Largest extended header.
    sparse_spans
        Most pieces of a sparse file.
    """

    ratio: int = 1000
    entries: int = 2_000_000
    depth: int = 256
    total_bytes: int = 1 << 36
    path_bytes: int = 4095
    header_bytes: int = 1 << 20
    sparse_spans: int = 1 << 16
