"""A layer's changes as a document that is kept beside its data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path as File
from typing import Any

from hyperbox.errors import HarnessError
from hyperbox.foreign import read_bytes
from hyperbox.storage.inode import Content, Extent, Inode
from hyperbox.storage.layer import Added, Change, Linked, Path, Removed

__all__ = ["decode_changes", "encode_changes", "encode_index", "read_index"]

_VERSION = 1

# Bytes are text in Latin-1, a letter for each byte: JSON has no bytes.


def encode_index(changes: Iterable[Change], size: int = 0, sha256: str = "") -> bytes:
    """Return the document of a layer whose blob has `size` bytes, with their digest."""
    document = {
        "version": _VERSION,
        "bytes": size,
        "sha256": sha256,
        "changes": encode_changes(changes),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def read_index(path: File, blob: str) -> tuple[list[Change], int, str]:
    """Return a layer's changes, and size and digest of its blob, whose key is `blob`.

    Raises
    ------
    HarnessError
        If the document cannot be read or is damaged.
    """
    data = read_bytes(path)
    try:
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise KeyError(document["version"])  # noqa: TRY301 - the same answer as for damage
        changes = decode_changes(document["changes"], blob)
        return changes, int(document["bytes"]), str(document["sha256"])
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise HarnessError(
            f"{path} is damaged or of another version", hint="remove it: it is made again"
        ) from error


def encode_changes(changes: Iterable[Change]) -> list[list[Any]]:
    """Return the changes as lists of JSON's values."""
    return [_encode(change) for change in changes]


def decode_changes(rows: Iterable[list[Any]], blob: str) -> list[Change]:
    """Return what `encode_changes` was given; `blob` is the key of the blob beside it.

    Raises
    ------
    ValueError, TypeError
        If they are not such rows.
    """
    return [_decode(row, blob) for row in rows]


def _encode(change: Change) -> list[Any]:
    path = _text(b"/".join(change.path))
    if isinstance(change, Removed):
        return ["removed", path, change.opaque]
    if isinstance(change, Linked):
        return ["linked", path, _text(b"/".join(change.target))]
    inode, content = change.inode, change.inode.content
    return [
        "added",
        path,
        [inode.mode, inode.uid, inode.gid, inode.mtime, *inode.device],
        _text(inode.target),
        [[_text(name), _text(value)] for name, value in inode.xattrs],
        [content.size, content.sha256, None if content.inline is None else _text(content.inline)],
        [[one.offset, one.place, one.length] for one in content.extents],
    ]


def _decode(row: list[Any], blob: str) -> Change:
    kind, path = row[0], _path(row[1])
    if kind == "removed":
        return Removed(path, bool(row[2]))
    if kind == "linked":
        return Linked(path, _path(row[2]))
    if kind != "added":
        raise ValueError(f"no change is {kind!r}")
    mode, uid, gid, mtime, major, minor = row[2]
    size, sha256, inline = row[5]
    extents = tuple(Extent(*one) for one in row[6])
    content = Content(
        size, sha256, blob if extents else "", extents, None if inline is None else _bytes(inline)
    )
    xattrs = tuple((_bytes(name), _bytes(value)) for name, value in row[4])
    inode = Inode(mode, uid, gid, mtime, (major, minor), _bytes(row[3]), xattrs, content)
    return Added(path, inode)


def _path(text: str) -> Path:
    return tuple(_bytes(text).split(b"/")) if text else ()


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")
