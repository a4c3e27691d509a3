"""Writes EROFS images without compression: the same tree makes the same bytes.

erofs-utils makes images from directories, and so only as root, with the owners, devices and
attributes that the machine's file system can hold; this one makes them from a `Tree`.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from hyperbox.errors import ImageError
from hyperbox.storage.erofs_body import Body, bytes_body, special_body
from hyperbox.storage.erofs_format import (
    BLOCK_BITS,
    CHUNK_BASED,
    CHUNKED,
    DEVICE_BYTES,
    DEVICES,
    FLAT_INLINE,
    INODE_BYTES,
    SLOT_BYTES,
    SUPER_OFFSET,
    device_slot,
    directory_blocks,
    file_type,
    inode_record,
    sealed,
    super_block,
    xattr_area,
)
from hyperbox.storage.inode import Content, Inode
from hyperbox.storage.tree import Node, Tree

__all__ = ["Device", "write_image"]

_BLOCK = 1 << BLOCK_BITS
_SUPER_BYTES = 128
_MOST_BLOCKS = (1 << 32) - 2

Pieces = Callable[[Content], Iterable[bytes]]
"""Returns a content's bytes, holes as zeros, in pieces."""


@dataclass(frozen=True)
class Device:
    """A blob beside the image: its name in the image, at most 63 characters, and its size."""

    tag: str
    bytes: int


@dataclass(eq=False, slots=True)
class _Item:
    """A file on its way into the image."""

    node: Node
    parent: Node
    body: Body
    links: int
    number: int = 0
    block: int = 0
    shared: bool = False


def write_image(
    stream: IO[bytes],
    tree: Tree,
    body: Callable[[Inode], Body],
    *,
    devices: Sequence[Device] = (),
    pieces: Pieces | None = None,
) -> None:
    """Write an image of a tree.

    Parameters
    ----------
    body
        Returns the body of a regular file.
    devices
        The blobs beside the image, in the order of their numbers.
    pieces
        Returns the data of the files whose data is in the image, if it is.

    Raises
    ------
    ImageError
        If the image would be larger than EROFS can be with blocks of 4 KiB (16 TiB).
    """
    items = _items(tree, body)
    head = SUPER_OFFSET + _SUPER_BYTES + DEVICE_BYTES * len(devices)
    end = _number(items.values(), head + -head % _BLOCK)
    blocks = _allot(items.values(), -(-end >> BLOCK_BITS))
    if blocks > _MOST_BLOCKS:
        raise ImageError("the files of the image are too large for an EROFS image")
    meta = _meta(items, head + -head % _BLOCK, end)
    slots = b"".join(device_slot(one.tag, -(-one.bytes >> BLOCK_BITS)) for one in devices)
    chunked = any(item.body.layout == CHUNK_BASED for item in items.values())
    super_bytes = super_block(
        root=items[tree.root].number,
        inodes=len(items),
        blocks=blocks,
        uuid=hashlib.sha256(slots + meta).digest()[:16],
        features=(CHUNKED if chunked else 0) | (DEVICES if devices else 0),
        devices=len(devices),
    )
    first = (bytes(SUPER_OFFSET) + super_bytes + slots).ljust(_BLOCK, b"\0")
    first = sealed(first[:_BLOCK]) + first[_BLOCK:]
    stream.write(first + bytes(-len(first) % _BLOCK))
    stream.write(meta)
    _write_data(stream, items, pieces)


def _items(tree: Tree, body: Callable[[Inode], Body]) -> dict[Node, _Item]:
    """Return every file once, in the order of its first name; links counted."""
    found: dict[Node, _Item] = {}
    parents: dict[tuple[bytes, ...], Node] = {(): tree.root}
    for path, node in tree.walk():
        parent = parents[path[:-1]]
        if node.inode.is_directory:
            parents[path] = node
        if node in found:
            found[node].links += 1
            continue
        links = 1
        if node.inode.is_directory:
            links = 2 + sum(child.inode.is_directory for child in node.children.values())
            made = bytes_body(_directory(node, parent, {}), xattr_area(node.inode.xattrs))
        elif node.inode.is_regular:
            made = body(node.inode)
        else:
            made = special_body(node.inode)
        found[node] = _Item(node, parent, made, links)
    return found


def _directory(node: Node, parent: Node, numbers: Mapping[Node, _Item]) -> bytes:
    """Return a directory's data; without `numbers` it has the right size only."""
    around: dict[bytes, Node] = {**node.children, b".": node, b"..": parent}
    entries = []
    for name in sorted(around):
        child = around[name]
        number = numbers[child].number if numbers else 0
        entries.append((name, number, file_type(child.inode.mode)))
    return b"".join(directory_blocks(entries))


def _number(items: Iterable[_Item], start: int) -> int:
    """Give each inode its place; return where the last one ends."""
    place = start
    for item in items:
        place += -place % SLOT_BYTES
        whole = item.body.space if item.body.layout == FLAT_INLINE else INODE_BYTES
        if place % _BLOCK + whole > _BLOCK:  # inline data may not go over the end of a block
            place += -place % _BLOCK
        item.number = place // SLOT_BYTES
        place += item.body.space
    return place


def _allot(items: Iterable[_Item], block: int) -> int:
    """Give data in the image its blocks, equal files the same ones; return how many it has."""
    known: dict[tuple[str, int], int] = {}
    for item in items:
        if not item.body.blocks:
            continue
        content = item.node.inode.content
        key = (content.sha256, item.body.blocks)
        item.shared = bool(content.sha256) and key in known
        item.block = known[key] if item.shared else block
        if not item.shared:
            known[key] = block
            block += item.body.blocks
    return block


def _meta(items: Mapping[Node, _Item], start: int, end: int) -> bytes:
    """Return the inodes with what follows each, padded to whole blocks."""
    area = bytearray(end - start + -end % _BLOCK)
    for serial, item in enumerate(items.values(), start=1):
        inode, body = item.node.inode, item.body
        tail = body.tail
        if inode.is_directory and body.layout == FLAT_INLINE:
            tail = _directory(item.node, item.parent, items)[-len(tail) :]
        record = inode_record(
            inode,
            layout=body.layout,
            size=body.size,
            union=item.block if body.union is None else body.union,
            number=serial & 0xFFFF_FFFF,
            links=item.links,
            xattr_bytes=len(body.xattrs),
        )
        place = item.number * SLOT_BYTES - start
        area[place : place + len(record) + len(body.xattrs)] = record + body.xattrs
        finish = place + body.space
        area[finish - len(tail) : finish] = tail
    return bytes(area)


def _write_data(stream: IO[bytes], items: Mapping[Node, _Item], pieces: Pieces | None) -> None:
    for item in items.values():
        body, inode = item.body, item.node.inode
        left = min(body.size, body.blocks << BLOCK_BITS)
        if not left or item.shared:
            continue
        if stat.S_ISDIR(inode.mode):
            stream.write(_directory(item.node, item.parent, items)[:left])
        elif body.data is not None:
            stream.write(body.data)
        else:
            assert pieces is not None
            _write_content(stream, pieces(inode.content), left)
        stream.write(bytes(-left % _BLOCK))


def _write_content(stream: IO[bytes], pieces: Iterable[bytes], size: int) -> None:
    left = size
    for piece in pieces:
        stream.write(piece[:left])
        left -= len(piece)
        if left <= 0:
            return
    raise ImageError("the data of a file in the store is shorter than its size")
