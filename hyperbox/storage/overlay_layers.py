"""What one layer adds to the tree below it, as overlayfs wants it in a directory. Pure.

Layers are not unpacked from their archives one by one: what an archive means depends on what is
below it (hard links into lower layers, symbolic links among a path's directories), and the
difference of two trees does not. Follows Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hyperbox.storage.inode import Inode
from hyperbox.storage.layer import Path
from hyperbox.storage.tree import Node, Tree

__all__ = ["Placed", "copied", "delta", "delta_tree"]

_WHITEOUT = Inode(stat.S_IFCHR)


@dataclass(frozen=True)
class Placed:
    """A file to make in a layer's directory; `node` is the same one for hard links."""

    path: Path
    node: Node


def copied(tree: Tree) -> dict[Node, Node]:
    """Return every node of a tree with a copy as it is now."""
    return {node: Node(node.inode, dict(node.children)) for _, node in tree.walk()}


def delta(before: dict[Node, Node], tree: Tree) -> list[Placed]:
    """Return what the layer's directory has, directories before what they hold.

    A file of which the layer changes one name is there with all its names, or they would be
    hard links no more.

    Parameters
    ----------
    before
        What `copied` returned before the layer was applied to `tree`; nothing for the lowest one.
    """
    old = _names(before, tree)
    changed = {
        node
        for path, node in tree.walk()
        if node not in before
        or before[node].inode is not node.inode
        or (old.get(path) is not node and not node.inode.is_directory)
    }
    return [Placed((), tree.root), *_placed((), tree.root, _Change(before, old, changed))]


def delta_tree(files: Iterable[Placed]) -> Tree:
    """Return what `delta` returned as a tree of its own, for an image of the layer."""
    tree = Tree()
    made: dict[Node, Node] = {}
    places: dict[Path, Node] = {}
    for one in files:
        node = made.setdefault(one.node, Node(one.node.inode))
        places[one.path] = node
        if one.path:
            places[one.path[:-1]].children[one.path[-1]] = node
        else:
            tree.root = node
    return tree


@dataclass(frozen=True)
class _Change:
    before: dict[Node, Node]
    old: dict[Path, Node]
    changed: set[Node]

    def gone(self, path: Path, node: Node) -> list[bytes]:
        """Return the names that a directory had and has no more."""
        was = self.old.get(path)
        return sorted(self.before[was].children.keys() - node.children.keys()) if was else []


def _names(before: dict[Node, Node], tree: Tree) -> dict[Path, Node]:
    """Return the names that the tree had, each with its node."""
    names: dict[Path, Node] = {}
    waiting: list[tuple[Path, Node]] = [((), tree.root)] if before else []
    while waiting:
        path, node = waiting.pop()
        names[path] = node
        for name, child in before[node].children.items():
            waiting.append(((*path, name), child))
    return names


def _placed(path: Path, node: Node, change: _Change) -> Iterator[Placed]:
    for name in change.gone(path, node):
        yield Placed((*path, name), Node(_WHITEOUT))
    for name in sorted(node.children):
        child, place = node.children[name], (*path, name)
        if not child.inode.is_directory:
            if child in change.changed:
                yield Placed(place, child)
            continue
        below = list(_placed(place, child, change))
        if below or child in change.changed or change.old.get(place) is not child:
            yield Placed(place, child)
            yield from below
