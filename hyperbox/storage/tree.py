"""The files of an image: layers applied one on the other. Pure.

The rules are those of the OCI image specification (layer.md); where it is silent, those of what
unpacks images today: symbolic links among a path's directories are followed, inside the image,
and directories that no layer has are made.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hyperbox.errors import ImageError
from hyperbox.storage.inode import Inode
from hyperbox.storage.layer import Added, Change, Linked, Path, Removed, shown

__all__ = ["Node", "Tree"]

_IMPLIED = Inode(stat.S_IFDIR | 0o755)
_DEEPEST = 512  # what symbolic links among directories may add to the limit on paths
_MOST_LINKS = 40  # as the kernel follows: MAXSYMLINKS in include/linux/namei.h


@dataclass(eq=False, slots=True)
class Node:
    """A file in a tree; hard links are several names of one node."""

    inode: Inode
    children: dict[bytes, Node] = field(default_factory=dict)


class Tree:
    """The root directory of an image, to which layers are applied from the lowest up."""

    def __init__(self) -> None:
        self.root = Node(_IMPLIED)

    def apply(self, changes: Iterable[Change]) -> None:
        """Apply a layer.

        Whiteouts concern what lower layers have, wherever they stand in the layer; of several
        entries of a path the last one counts; a hard link may stand before its target.

        Raises
        ------
        ImageError
            If a hard link's target is nowhere, or a path leads through a file.
        """
        additions: list[Added | Linked] = []
        for change in changes:
            if isinstance(change, Removed):
                self._remove(change)
            else:
                additions.append(change)
        early = [one for one in additions if not self._add(one)]
        while early:  # a link may lead to a link that stands after it
            waiting = [one for one in early if not self._add(one)]
            if len(waiting) == len(early):
                first = waiting[0]
                target = shown(first.target) if isinstance(first, Linked) else ""
                raise ImageError(f"the hard link {shown(first.path)} has no target {target}")
            early = waiting

    def walk(self) -> Iterator[tuple[Path, Node]]:
        """Yield every name with its node: directories before what they hold, names sorted."""
        stack: list[tuple[Path, Node]] = [((), self.root)]
        while stack:
            path, node = stack.pop()
            yield path, node
            for name in sorted(node.children, reverse=True):
                stack.append(((*path, name), node.children[name]))

    def find(self, path: Path) -> Node | None:
        """Return what is at a path; symbolic links among its directories are followed."""
        try:
            parent = self._directory(path[:-1], make=False)
        except ImageError:
            return None
        if parent is None or not path:
            return parent
        return parent.children.get(path[-1])

    def _remove(self, change: Removed) -> None:
        node = self.find(change.path)
        if node is None:
            return
        if change.opaque:
            node.children.clear()
        elif change.path:
            parent = self._directory(change.path[:-1], make=False)
            assert parent is not None
            del parent.children[change.path[-1]]

    def _add(self, change: Added | Linked) -> bool:
        """Whether it could be added; a link whose target is not there yet cannot."""
        if not change.path:
            assert isinstance(change, Added)
            self.root.inode = change.inode
            return True
        if isinstance(change, Linked):
            target = self.find(change.target)
            if target is None:
                return False
            if target.inode.is_directory:
                raise ImageError(f"the hard link {shown(change.path)} leads to a directory")
            self._parent(change.path).children[change.path[-1]] = target
            return True
        parent, name = self._parent(change.path), change.path[-1]
        present = parent.children.get(name)
        if present is not None and present.inode.is_directory and change.inode.is_directory:
            present.inode = change.inode
        else:
            parent.children[name] = Node(change.inode)
        return True

    def _parent(self, path: Path) -> Node:
        node = self._directory(path[:-1], make=True)
        assert node is not None
        return node

    def _directory(self, path: Path, *, make: bool) -> Node | None:
        """Return the directory at a path; None if it is absent and not to be made."""
        stack, waiting, followed = [self.root], list(reversed(path)), 0
        while waiting:
            name = waiting.pop()
            if name == b"..":
                stack[1:] = stack[1:-1]  # what is above the root is the root
                continue
            found = stack[-1].children.get(name)
            if found is None:
                if not make:
                    return None
                found = stack[-1].children[name] = Node(_IMPLIED)
            if stat.S_ISLNK(found.inode.mode):
                followed += 1
                if followed > _MOST_LINKS:
                    raise ImageError(f"too many symbolic links on the way to {shown(path)}")
                target = found.inode.target
                if target.startswith(b"/"):
                    del stack[1:]
                parts = [part for part in target.split(b"/") if part not in (b"", b".")]
                waiting.extend(reversed(parts))
                continue
            if not found.inode.is_directory:
                raise ImageError(f"the way to {shown(path)} leads through a file")
            stack.append(found)
            if len(stack) > _DEEPEST:
                raise ImageError(f"the way to {shown(path)} is too deep")
        return stack[-1]
