"""EROFS images with compression, by mkfs.erofs of erofs-utils; needs root and an unpacked tree.

What a build can is tried, not read: Debian 12's (1.5) has lz4 only. Which kernel mounts what:
lz4 from 5.4, LZMA from 5.16, DEFLATE from 6.6, zstd from 6.10.
"""

from __future__ import annotations

import struct
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from hyperbox.errors import ConfigError
from hyperbox.files import atomic_writer
from hyperbox.processes import require, run
from hyperbox.storage.erofs_format import BLOCK_BITS, SUPER_OFFSET, sealed
from hyperbox.storage.inode import Content
from hyperbox.storage.overlay_layers import delta
from hyperbox.storage.tree import Tree
from hyperbox.storage.unpacking import unpack

__all__ = ["write_compressed"]

_TIMEOUT_S = 3600.0
_BLOCK = 1 << BLOCK_BITS
_PIECE = 1 << 20
_BUILD_TIME = struct.Struct("<QI")  # seconds and nanoseconds, 24 bytes into the super block
_NAME = uuid.UUID("6f6a1c5e-6c1c-5e63-9f5a-62d6b5a5a001")  # of this project's images


def write_compressed(
    tree: Tree,
    read: Callable[[Content, int, int], bytes],
    path: Path,
    algorithm: str,
    name: str,
) -> None:
    """Write an image; the same tree makes the same bytes with the same build of erofs-utils.

    Parameters
    ----------
    read
        Returns a part of a content: offset, length.
    algorithm
        As ``mkfs.erofs -z`` takes it: ``lz4``, ``lz4hc,9``, ``zstd``.
    name
        What the image's UUID is made of.

    Raises
    ------
    ConfigError
        If mkfs.erofs does not know the algorithm.
    MissingDependency
        If there is no mkfs.erofs.
    ImageError, HarnessError
        If the tree cannot be unpacked here, or mkfs.erofs fails.
    """
    program = require("mkfs.erofs", "erofs-utils")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as directory:
        scratch = Path(directory)
        (scratch / "empty").mkdir()
        _make(program, algorithm, name, scratch / "trial", scratch / "empty")
        (scratch / "tree").mkdir()
        unpack(scratch / "tree", delta({}, tree), read)
        image = scratch / "image"
        _make(program, algorithm, name, image, scratch / "tree")
        with image.open("rb") as made, atomic_writer(path) as stream:
            stream.write(_without_build_time(made.read(_BLOCK)))
            while piece := made.read(_PIECE):
                stream.write(piece)


def _make(program: str, algorithm: str, name: str, image: Path, tree: Path) -> None:
    # No -T: 1.5 sets the time of every file with it.
    identity = str(uuid.uuid5(_NAME, name))
    options = ("--quiet", f"-z{algorithm}", "-U", identity)
    done = run([program, *options, image, tree], timeout=_TIMEOUT_S, check=False)
    if done.status != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise ConfigError(
            f"mkfs.erofs cannot write with {algorithm}: {said[0]}",
            hint="'mkfs.erofs --help' names what this build can",
        )


def _without_build_time(block: bytes) -> bytes:
    """Return an image's first block as if it had been made in 1970, its checksum anew."""
    place = SUPER_OFFSET + 24
    return sealed(block[:place] + _BUILD_TIME.pack(0, 0) + block[place + _BUILD_TIME.size :])
