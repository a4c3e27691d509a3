"""A layer as a list of changes: what it adds, links and removes. Pure.

Follows "Image Layer Filesystem Changeset" of the OCI image specification (layer.md).
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass

from hyperbox.errors import ImageError
from hyperbox.storage.inode import Content, Inode
from hyperbox.storage.limits import Limits
from hyperbox.storage.tar_header import Header

__all__ = ["Added", "Change", "Linked", "Path", "Removed", "change_of", "shown"]

Path = tuple[bytes, ...]
"""Names from the root down; the root itself is ()."""

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # names of aufs itself, which are not files: layer.md leaves them to it
_LONGEST_NAME = 255
_LARGEST_ID = (1 << 32) - 2  # the last one means "no id" in system calls
_TYPES: Mapping[bytes, int] = {
    b"0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
_NAMESPACES = (b"user.", b"trusted.", b"security.")
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
# What overlayfs reads from its lower layers; a layer that brings them could show any other file.
_OVERLAY = (b"trusted.overlay.", b"user.overlay.")


@dataclass(frozen=True, slots=True)
class Added:
    """A file, of any kind, that the layer brings."""

    path: Path
    inode: Inode


@dataclass(frozen=True, slots=True)
class Linked:
    """A further name of a file of this layer or one below."""

    path: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Removed:
    """What lower layers have at a path is gone; with `opaque`, only what they have below it."""

    path: Path
    opaque: bool = False


Change = Added | Linked | Removed


def change_of(header: Header, content: Content, limits: Limits) -> Change | None:
    """Return what a member of a layer's archive does; None if it does nothing.

    Raises
    ------
    ImageError
        If a name leads out of the image, or no Linux file system could hold the file.
    """
    path = _path(header.name, limits)
    if path and path[-1].startswith(_WHITEOUT):
        return _removed(path)
    if header.kind == b"1":
        if not path:
            raise ImageError("the root of the image cannot be a link")
        return Linked(path, _path(header.link, limits))
    mode = _TYPES[header.kind] | header.mode
    if not path and not stat.S_ISDIR(mode):
        raise ImageError(f"the root of the image is not a directory: {header.name!r}")
    target = header.link if stat.S_ISLNK(mode) else b""
    if stat.S_ISLNK(mode) and not target:
        raise ImageError(f"the symbolic link {shown(path)} leads nowhere")
    device = header.device if header.kind in b"34" else (0, 0)
    _check_numbers(header, path, device)
    xattrs = _xattrs(header, path)
    return Added(
        path, Inode(mode, header.uid, header.gid, header.mtime, device, target, xattrs, content)
    )


def shown(path: Path) -> str:
    """Return a path as people read it."""
    return repr("/" + b"/".join(path).decode(errors="backslashreplace"))


def _path(name: bytes, limits: Limits) -> Path:
    path = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in path:
        raise ImageError(f"{name!r} in the layer leads out of its directory")
    if len(path) > limits.depth:
        raise ImageError(f"{name[:80]!r}... in the layer is deeper than {limits.depth} directories")
    if any(len(part) > _LONGEST_NAME for part in path):
        raise ImageError(f"a name in the layer is longer than {_LONGEST_NAME} bytes: {name[:80]!r}")
    return path


def _removed(path: Path) -> Change | None:
    name = path[-1]
    if name == _OPAQUE:
        return Removed(path[:-1], opaque=True)
    if name.startswith(_AUFS):
        return None
    hidden = name[len(_WHITEOUT) :]
    if hidden in (b"", b".", b".."):
        raise ImageError(f"the layer has a whiteout of no name: {shown(path)}")
    return Removed((*path[:-1], hidden))


def _check_numbers(header: Header, path: Path, device: tuple[int, int]) -> None:
    if header.uid > _LARGEST_ID or header.gid > _LARGEST_ID:
        raise ImageError(f"owner {header.uid}:{header.gid} of {shown(path)} is out of range")
    major, minor = device
    if major >= 1 << 12 or minor >= 1 << 20:  # what the kernel's new_encode_dev() holds
        raise ImageError(f"device {major}:{minor} of {shown(path)} is out of range")
    if header.kind == b"3" and device == (0, 0):
        raise ImageError(f"{shown(path)} is a character device 0:0, which overlayfs removes")


def _xattrs(header: Header, path: Path) -> tuple[tuple[bytes, bytes], ...]:
    """Return the attributes that Linux file systems hold; tar extraction leaves out others too."""
    kept = []
    for name, value in sorted(header.xattrs.items()):
        if name.startswith(_OVERLAY):
            raise ImageError(f"{shown(path)} in the layer has the attribute {name!r} of overlayfs")
        if not name.startswith(_NAMESPACES) and name not in _ACLS:
            continue
        if len(name) > _LONGEST_NAME or len(value) > 0xFFFF:
            raise ImageError(f"the attribute {name[:80]!r} of {shown(path)} is too long")
        kept.append((name, value))
    return tuple(kept)
