"""What a tree has, name by name: of an image, and of a directory where one is mounted."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hyperbox.storage.tree import Tree

__all__ = ["ListedEntry", "differences", "list_directory", "list_tree"]


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """A name in a tree, and everything of the file that a program can ask for.

    Parameters
    ----------
    sha256
        Of a regular file's data; "" of an empty one and of other kinds.
    first
        The first of the file's names in order: the same for hard links.
    """

    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    device: tuple[int, int]
    target: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]
    sha256: str
    first: bytes


Listing = Mapping[bytes, ListedEntry]
"""Entries by path, from the root ``b""`` down, without a slash in front."""


def list_tree(tree: Tree) -> dict[bytes, ListedEntry]:
    """Return what an image of a tree has to show; pure."""
    found: dict[bytes, ListedEntry] = {}
    firsts: dict[object, bytes] = {}
    for path, node in tree.walk():
        name, inode = b"/".join(path), node.inode
        sized = len(inode.target) if stat.S_ISLNK(inode.mode) else inode.content.size
        found[name] = ListedEntry(
            inode.mode,
            inode.uid,
            inode.gid,
            inode.mtime,
            sized,
            inode.device,
            inode.target,
            inode.xattrs,
            inode.content.sha256,
            firsts.setdefault(node, name),
        )
    return found


def list_directory(top: Path) -> dict[bytes, ListedEntry]:
    """Return what a directory has, all files read.

    Raises
    ------
    OSError
        If something cannot be read.
    """
    found: dict[bytes, ListedEntry] = {}
    firsts: dict[tuple[int, int], bytes] = {}
    for name in _names(top):
        path = top / os.fsdecode(name)
        entry, facts = _entry(path), path.lstat()
        first = firsts.setdefault((facts.st_dev, facts.st_ino), name)
        if stat.S_ISDIR(facts.st_mode):
            first = name  # overlayfs numbers directories of several layers anew
        found[name] = replace(entry, first=first)
    return found


def differences(expected: Listing, found: Listing) -> Iterator[str]:
    """Yield a line for everything in which two listings differ; pure."""
    for path in sorted(expected.keys() | found.keys()):
        name = repr("/" + path.decode(errors="backslashreplace"))
        if path not in found:
            yield f"- {name}"
        elif path not in expected:
            yield f"+ {name}"
        elif expected[path] != found[path]:
            yield f"~ {name}: {_changed(expected[path], found[path])}"


def _changed(old: ListedEntry, new: ListedEntry) -> str:
    parts = []
    for field in ListedEntry.__slots__:
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            octal = field == "mode"
            parts.append(
                f"{field} {before:o} -> {after:o}" if octal else f"{field} {before!r} -> {after!r}"
            )
    return ", ".join(parts)


def _names(top: Path) -> Iterator[bytes]:
    waiting = [b""]
    while waiting:
        name = waiting.pop()
        yield name
        path = top / os.fsdecode(name)
        if stat.S_ISDIR(path.lstat().st_mode):
            below = sorted((os.fsencode(one.name) for one in path.iterdir()), reverse=True)
            waiting += [name + b"/" + one if name else one for one in below]


def _entry(path: Path) -> ListedEntry:
    facts = path.lstat()
    target, sha256, size = b"", "", 0
    if stat.S_ISLNK(facts.st_mode):
        target = os.fsencode(os.readlink(path))  # noqa: PTH115 - a Path is tidied: "a//b"
        size = facts.st_size
    elif stat.S_ISREG(facts.st_mode):
        size = facts.st_size
        if size:
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    device = (0, 0)
    if stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode):
        device = (os.major(facts.st_rdev), os.minor(facts.st_rdev))
    return ListedEntry(
        facts.st_mode,
        facts.st_uid,
        facts.st_gid,
        facts.st_mtime_ns,
        size,
        device,
        target,
        _xattrs(path),
        sha256,
        b"",
    )


def _xattrs(path: Path) -> tuple[tuple[bytes, bytes], ...]:
    names = (os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False))
    return tuple(sorted((name, os.getxattr(path, name, follow_symlinks=False)) for name in names))
