"""Files as values: what an image says of one, apart from its name."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

__all__ = ["Content", "Extent", "Inode"]


@dataclass(frozen=True, slots=True)
class Extent:
    """A piece of a file that has data: where in the file, where in the blob, how long (bytes).

    The places are multiples of the block size; the last block is padded with zeros.
    """

    offset: int
    place: int
    length: int


@dataclass(frozen=True, slots=True)
class Content:
    """The data of a regular file.

    Parameters
    ----------
    size
        Bytes, holes included.
    sha256
        Of all bytes, as 64 hexadecimal digits; "" of an empty file.
    blob
        Key of the layer blob that `extents` are in; "" where data is kept by its digest.
    inline
        The data itself, where it is short enough to be kept with the metadata.
    """

    size: int = 0
    sha256: str = ""
    blob: str = ""
    extents: tuple[Extent, ...] = ()
    inline: bytes | None = None


@dataclass(frozen=True, slots=True)
class Inode:
    """A file of any kind.

    Parameters
    ----------
    mode
        Type and permissions, as ``st_mode`` of stat(2).
    mtime
        Nanoseconds since 1970; may be negative.
    device
        Major and minor number of a device.
    target
        Of a symbolic link.
    xattrs
        Extended attributes with their whole names, sorted.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    device: tuple[int, int] = (0, 0)
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    content: Content = field(default_factory=Content)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)
