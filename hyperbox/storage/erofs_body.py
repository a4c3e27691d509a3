"""What an EROFS inode has beside its numbers: where the data is, by the kind of image. Pure."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hyperbox.errors import ImageError
from hyperbox.storage.content_sink import PACKED_BYTES
from hyperbox.storage.erofs_format import (
    BLOCK_BITS,
    CHUNK_BASED,
    FLAT_INLINE,
    FLAT_PLAIN,
    INODE_BYTES,
    NOWHERE,
    chunk_index,
    device_number,
    xattr_area,
)
from hyperbox.storage.inode import Content, Inode

__all__ = ["Body", "bytes_body", "chunked_body", "composefs_body", "plain_body", "special_body"]

_BLOCK = 1 << BLOCK_BITS
_INDEXES = 0x20  # EROFS_CHUNK_FORMAT_INDEXES
_MOST_CHUNK_BITS = 0x1F  # EROFS_CHUNK_FORMAT_BLKBITS_MASK
_MOST_CHUNKS = 1 << 22  # of one file: 32 MiB of indexes


@dataclass(frozen=True, slots=True)
class Body:
    """What follows an inode, and what it points to.

    Parameters
    ----------
    layout
        One of the data layouts.
    size
        Of the file in bytes.
    xattrs
        The area of extended attributes.
    tail
        What follows them: the last part of the data, or indexes of chunks.
    union
        The inode's `i_u`, where it is not an address of blocks in this image.
    blocks
        Whole blocks of data in this image.
    data
        What they hold, where it is known at once; else it is the content's.
    """

    layout: int
    size: int
    xattrs: bytes = b""
    tail: bytes = b""
    union: int | None = None
    blocks: int = 0
    data: bytes | None = None

    @property
    def space(self) -> int:
        """Bytes from the start of the inode to the end of what follows it."""
        pad = -(INODE_BYTES + len(self.xattrs)) % 8 if self.layout == CHUNK_BASED else 0
        return INODE_BYTES + len(self.xattrs) + pad + len(self.tail)


def special_body(inode: Inode) -> Body:
    """Return the body of a device, a FIFO or a symbolic link."""
    xattrs = xattr_area(inode.xattrs)
    if stat.S_ISLNK(inode.mode):
        return bytes_body(inode.target, xattrs)
    return Body(FLAT_PLAIN, 0, xattrs, union=device_number(inode.device))


def bytes_body(data: bytes, xattrs: bytes) -> Body:
    """Return the body of data that is all known: the last part inline, where a block holds it."""
    tail = len(data) % _BLOCK
    if tail and INODE_BYTES + len(xattrs) + tail <= _BLOCK:
        whole = len(data) - tail
        return Body(
            FLAT_INLINE,
            len(data),
            xattrs,
            data[whole:],
            blocks=whole >> BLOCK_BITS,
            data=data[:whole],
        )
    blocks = -(-len(data) >> BLOCK_BITS)
    return Body(FLAT_PLAIN, len(data), xattrs, blocks=blocks, data=data)


def plain_body(inode: Inode, read: Callable[[Content, int, int], bytes]) -> Body:
    """Return the body of a regular file whose data is in the image: any kernel reads it.

    Parameters
    ----------
    read
        Returns a part of a content: offset, length.
    """
    content, xattrs = inode.content, xattr_area(inode.xattrs)
    tail = content.size % _BLOCK
    if tail and INODE_BYTES + len(xattrs) + tail <= _BLOCK:
        whole = content.size - tail
        inline = read(content, whole, tail)
        return Body(FLAT_INLINE, content.size, xattrs, inline, blocks=whole >> BLOCK_BITS)
    return Body(FLAT_PLAIN, content.size, xattrs, blocks=-(-content.size >> BLOCK_BITS))


def chunked_body(
    inode: Inode, devices: Mapping[str, int], read: Callable[[Content, int, int], bytes]
) -> Body:
    """Return the body of a regular file whose data is in blobs beside the image (Linux 5.16).

    Short ones are in the image, too: in their blobs they are not at multiples of the block size.

    Parameters
    ----------
    devices
        Number of each blob's device, from 1.
    read
        Returns a part of a content: offset, length.

    Raises
    ------
    ImageError
        If a sparse file has too many pieces.
    """
    content, xattrs = inode.content, xattr_area(inode.xattrs)
    if content.inline is not None:
        return bytes_body(content.inline, xattrs)
    if not content.size:
        return Body(FLAT_PLAIN, 0, xattrs)
    if content.size <= PACKED_BYTES:
        return bytes_body(read(content, 0, content.size), xattrs)
    device = devices[content.blob] if content.extents else 0
    bits, places = _chunks(content)
    indexes = b"".join(
        chunk_index(device if place is not None else 0, NOWHERE if place is None else place)
        for place in places
    )
    return Body(CHUNK_BASED, content.size, xattrs, indexes, union=bits | _INDEXES)


def composefs_body(inode: Inode) -> Body:
    """Return the body of a regular file whose data overlayfs finds by its digest.

    Kernels before 5.15 refuse chunks, so the inode is flat; its address is never used, because
    overlayfs takes the data from where `trusted.overlay.redirect` leads.
    """
    content = inode.content
    if content.inline is not None:
        return bytes_body(content.inline, xattr_area(inode.xattrs))
    if not content.size:
        return Body(FLAT_PLAIN, 0, xattr_area(inode.xattrs))
    place = f"/{content.sha256[:2]}/{content.sha256[2:]}".encode()
    overlay = ((b"trusted.overlay.metacopy", b""), (b"trusted.overlay.redirect", place))
    xattrs = xattr_area(tuple(sorted((*inode.xattrs, *overlay))))
    return Body(FLAT_PLAIN, content.size, xattrs, union=NOWHERE)


def _chunks(content: Content) -> tuple[int, list[int | None]]:
    """Return the chunks' size in bits above a block's, and each one's block; None for a hole."""
    blocks = -(-content.size >> BLOCK_BITS)
    first = content.extents[0] if content.extents else None
    if first is not None and len(content.extents) == 1 and first.length >= content.size:
        bits = (blocks - 1).bit_length()
        if bits <= _MOST_CHUNK_BITS:
            return bits, [first.place >> BLOCK_BITS]
    if blocks > _MOST_CHUNKS:
        raise ImageError(f"a sparse file of {content.size} bytes is too large for an EROFS image")
    places: list[int | None] = [None] * blocks
    for extent in content.extents:
        for place in range(extent.length >> BLOCK_BITS):
            at = (extent.offset >> BLOCK_BITS) + place
            places[at] = (extent.place >> BLOCK_BITS) + place
    return 0, places
