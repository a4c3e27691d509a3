"""composefs: an EROFS image of names and metadata, and overlayfs that finds data by its digest.

The image has what mkcomposefs of composefs 1.0 writes, but no chunks, which kernels before 5.15
refuse, so that one image mounts on every kernel that has overlayfs with ``metacopy`` (4.19).
"""

from __future__ import annotations

import stat
from dataclasses import replace

from hyperbox.storage.inode import Inode
from hyperbox.storage.tree import Node, Tree

__all__ = ["with_hidden_objects"]

_WHITEOUT = Inode(stat.S_IFCHR)
_OPAQUE = (b"trusted.overlay.opaque", b"y")


def with_hidden_objects(tree: Tree) -> Tree:
    """Return a tree that hides the objects' directories, which overlayfs merges with its root.

    Layers of data only (``lowerdir=IMAGE::OBJECTS``) came in Linux 6.5; before, the directories
    ``00`` to ``ff`` would be seen. A whiteout hides each, and one that the image itself has is
    opaque.
    """
    root = Node(tree.root.inode, dict(tree.root.children))
    for number in range(256):
        name = b"%02x" % number
        present = root.children.get(name)
        if present is None:
            root.children[name] = Node(_WHITEOUT)
        elif present.inode.is_directory:
            xattrs = tuple(sorted((*present.inode.xattrs, _OPAQUE)))
            root.children[name] = Node(replace(present.inode, xattrs=xattrs), present.children)
    hidden = Tree()
    hidden.root = root
    return hidden
