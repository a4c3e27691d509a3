"""The on-disk format of EROFS, as far as images without compression use it. Pure.

Follows Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of Linux 6.12; extended inodes,
so that owners and times are exact. Chunks came in 5.15 (commit 2a9dc7a8fec6), further devices in
5.16 (dfeab2e95a75); images without both mount from 5.4.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hyperbox.errors import ImageError
from hyperbox.storage.inode import Inode

__all__ = [
    "BLOCK_BITS",
    "CHUNKED",
    "CHUNK_BASED",
    "DEVICES",
    "DEVICE_BYTES",
    "FLAT_INLINE",
    "FLAT_PLAIN",
    "INODE_BYTES",
    "MAGIC",
    "NOWHERE",
    "SLOT_BYTES",
    "SUPER_OFFSET",
    "check_super_block",
    "chunk_index",
    "crc32c",
    "device_number",
    "device_slot",
    "directory_blocks",
    "file_type",
    "inode_record",
    "sealed",
    "super_block",
    "xattr_area",
]

MAGIC = 0xE0F5E1E2
SUPER_OFFSET = 1024
BLOCK_BITS = 12
_BLOCK = 1 << BLOCK_BITS
INODE_BYTES = 64
"""Of an extended inode."""
SLOT_BYTES = 32
"""Unit of inode numbers."""
DEVICE_BYTES = 128
NOWHERE = 0xFFFFFFFF
"""Block address of a hole, and of data that lies elsewhere."""

FLAT_PLAIN = 0
FLAT_INLINE = 2
CHUNK_BASED = 4
CHUNKED = 0x4  # EROFS_FEATURE_INCOMPAT_*
DEVICES = 0x8
_CHECKSUM, _MTIME = 0x1, 0x2  # EROFS_FEATURE_COMPAT_*: one has a checksum, times are mtimes
_EXTENDED = 1

_INODE = struct.Struct("<HHHHQIIIIQII16x")
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_DEVICE = struct.Struct("<64sII56x")
_DIRENT = struct.Struct("<QHBx")
_XATTR_HEADER = struct.Struct("<IB7x")
_XATTR = struct.Struct("<BBH")
_CHUNK = struct.Struct("<HHI")

# Longest first: an attribute has the number of the first prefix that it begins with.
_PREFIXES = (
    (b"system.posix_acl_default", 3),
    (b"system.posix_acl_access", 2),
    (b"security.", 6),
    (b"trusted.", 4),
    (b"user.", 1),
)
# <linux/fs_types.h>: regular, directory, character, block, FIFO, socket, link
_FILE_TYPES = {0x8: 1, 0x4: 2, 0x2: 3, 0x6: 4, 0x1: 5, 0xC: 6, 0xA: 7}


def file_type(mode: int) -> int:
    """Return what a directory entry says of a file of this mode."""
    return _FILE_TYPES[mode >> 12]


def inode_record(
    inode: Inode, *, layout: int, size: int, union: int, number: int, links: int, xattr_bytes: int
) -> bytes:
    """Return an extended inode; `union` is a block address, a device or a chunk format."""
    seconds, nanoseconds = divmod(inode.mtime, 1_000_000_000)
    count = (xattr_bytes - 12) // 4 + 1 if xattr_bytes else 0
    return _INODE.pack(
        _EXTENDED | layout << 1,
        count,
        inode.mode,
        0,
        size,
        union,
        number,
        inode.uid,
        inode.gid,
        seconds & 0xFFFF_FFFF_FFFF_FFFF,
        nanoseconds,
        links,
    )


def device_number(device: tuple[int, int]) -> int:
    """Return a device as the kernel's new_encode_dev() has it."""
    major, minor = device
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def xattr_area(xattrs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the extended attributes of an inode as they follow it, none of them shared.

    Raises
    ------
    ImageError
        If there are more than an inode can have.
    """
    if not xattrs:
        return b""
    area = bytearray(_XATTR_HEADER.pack(0, 0))
    for name, value in xattrs:
        prefix, number = next(one for one in _PREFIXES if name.startswith(one[0]))
        suffix = name[len(prefix) :]
        area += _XATTR.pack(len(suffix), number, len(value)) + suffix + value
        area += bytes(-len(area) % 4)
    if (len(area) - 12) // 4 + 1 > 0xFFFF:
        raise ImageError("the extended attributes of a file have more than 256 KiB")
    return bytes(area)


def directory_blocks(entries: Sequence[tuple[bytes, int, int]]) -> list[bytes]:
    """Return the blocks of a directory; the last one is as short as it can be.

    Parameters
    ----------
    entries
        Name, inode number and file type, sorted by name, ``.`` and ``..`` among them.
    """
    blocks, start, used = [], 0, 0
    for place, (name, _, _) in enumerate(entries):
        length = _DIRENT.size + len(name)
        if used + length > _BLOCK:
            blocks.append(_directory_block(entries[start:place]).ljust(_BLOCK, b"\0"))
            start, used = place, 0
        used += length
    return [*blocks, _directory_block(entries[start:])]


def _directory_block(entries: Sequence[tuple[bytes, int, int]]) -> bytes:
    heads, offset = bytearray(), _DIRENT.size * len(entries)
    for name, number, kind in entries:
        heads += _DIRENT.pack(number, offset, kind)
        offset += len(name)
    return bytes(heads) + b"".join(name for name, _, _ in entries)


def chunk_index(device: int, block: int) -> bytes:
    """Return where a chunk lies: device (0 is the image itself) and block there."""
    return _CHUNK.pack(0, device, block)


def device_slot(tag: str, blocks: int) -> bytes:
    """Return what an image says of a further device."""
    return _DEVICE.pack(tag.encode("ascii"), blocks, 0)


def super_block(
    *, root: int, inodes: int, blocks: int, uuid: bytes, features: int, devices: int
) -> bytes:
    """Return the super block, yet without its checksum: see `sealed`. Device slots follow it."""
    slot = (SUPER_OFFSET + _SUPER.size) // DEVICE_BYTES if devices else 0
    return _SUPER.pack(
        MAGIC,
        0,
        _CHECKSUM | _MTIME,
        BLOCK_BITS,
        0,
        root,
        inodes,
        0,
        0,
        blocks,
        0,
        0,
        uuid,
        b"",
        features,
        0,
        devices,
        slot,
        0,
        0,
        0,
        0,
        0,
    )


def check_super_block(block: bytes, size: int) -> None:
    """Refuse an image of others that cannot be whole, or that wants a second device.

    Parameters
    ----------
    block
        Its first 4096 bytes.
    size
        Its length in bytes.

    Raises
    ------
    ImageError
        If it is no such image.
    """
    if len(block) < _BLOCK:
        raise ImageError(f"an EROFS image has {_BLOCK} bytes at least, this one has {len(block)}")
    fields = _SUPER.unpack_from(block, SUPER_OFFSET)
    magic, compatible, bits, blocks, devices = (fields[place] for place in (0, 2, 3, 9, 16))
    if magic != MAGIC:
        raise ImageError("it is not an EROFS image")
    if bits != BLOCK_BITS:
        raise ImageError(f"its blocks have 2^{bits} bytes, and not every kernel mounts such")
    if devices:
        raise ImageError(f"it wants {devices} devices more")
    if blocks << BLOCK_BITS > size:
        raise ImageError(f"it has {size} bytes, and {blocks} blocks according to itself")
    if compatible & _CHECKSUM and sealed(block[:_BLOCK]) != block[:_BLOCK]:
        raise ImageError("its super block does not have its checksum")


def sealed(block: bytes) -> bytes:
    """Return an image's first block with the super block's checksum in it."""
    place = SUPER_OFFSET + 4
    checksum = crc32c(block[SUPER_OFFSET:place] + bytes(4) + block[place + 4 : _BLOCK])
    return block[:place] + struct.pack("<I", checksum) + block[place + 4 :]


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) as the kernel's crc32c(~0, ...) does, not inverted."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _table()
