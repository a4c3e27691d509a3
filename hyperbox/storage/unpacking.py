"""Makes files of a tree in a directory: as root, with owners, devices and attributes as they are.

The directory is new and only this process writes to it, and every directory on the way to a file
was made here: no symbolic link of an image is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hyperbox.errors import ImageError
from hyperbox.storage.inode import Content, Extent, Inode
from hyperbox.storage.overlay_layers import Placed
from hyperbox.storage.tree import Node

__all__ = ["unpack"]

Read = Callable[[Content, int, int], bytes]
_PIECE = 1 << 20


def unpack(top: Path, files: Sequence[Placed], read: Read) -> None:
    """Make files below an empty directory, which becomes the root of them.

    Parameters
    ----------
    files
        Directories before what they hold.
    read
        Returns a part of a content: offset, length.

    Raises
    ------
    ImageError
        If the file system cannot hold one of them, or this process may not make it.
    """
    made: dict[Node, Path] = {}
    for one in files:
        path = _below(top, one)
        try:
            if one.node in made:
                os.link(made[one.node], path, follow_symlinks=False)
                continue
            _make(path, one.node.inode, read)
        except OSError as error:
            hint = "run as root" if isinstance(error, PermissionError) else ""
            raise ImageError(f"cannot unpack {str(path)!r}: {error.strerror}", hint=hint) from error
        made[one.node] = path
    for one in reversed(files):  # what is made in a directory changes its time
        if one.node.inode.is_directory:
            mtime = one.node.inode.mtime
            os.utime(_below(top, one), ns=(mtime, mtime))


def _below(top: Path, one: Placed) -> Path:
    return top.joinpath(*map(os.fsdecode, one.path))


def _make(path: Path, inode: Inode, read: Read) -> None:
    if inode.is_directory:
        path.mkdir(exist_ok=True)  # the top is there
    elif stat.S_ISLNK(inode.mode):
        path.symlink_to(os.fsdecode(inode.target))
    elif inode.is_regular:
        _write(path, inode.content, read)
    else:
        os.mknod(path, inode.mode, os.makedev(*inode.device))
    os.chown(path, inode.uid, inode.gid, follow_symlinks=False)
    if not stat.S_ISLNK(inode.mode):
        path.chmod(stat.S_IMODE(inode.mode))  # after chown(2), which takes set-id bits away
    for name, value in inode.xattrs:
        os.setxattr(path, name, value, follow_symlinks=False)
    os.utime(path, ns=(inode.mtime, inode.mtime), follow_symlinks=False)


def _write(path: Path, content: Content, read: Read) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.truncate(handle, content.size)
        for offset, length in _pieces(content):
            os.pwrite(handle, read(content, offset, length), offset)
    finally:
        os.close(handle)


def _pieces(content: Content) -> Iterator[tuple[int, int]]:
    """Yield what has data, so that holes stay holes."""
    whole = (Extent(0, 0, content.size),) if content.inline is not None else content.extents
    for extent in _cut(whole, content.size):
        for offset in range(extent.offset, extent.offset + extent.length, _PIECE):
            yield offset, min(_PIECE, extent.offset + extent.length - offset)


def _cut(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    for one in extents:
        yield Extent(one.offset, one.place, min(one.length, size - one.offset))
