"""An ext4 file system in a guest's memory.

A guest's own is tmpfs, which has no pre-content events and no files that EROFS could mount.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hyperbox.files import write_bytes
from hyperbox.linux.loop import attach_loop
from hyperbox.linux.modules import load_module
from hyperbox.linux.mounts import mount, unmount
from hyperbox.processes import require, run

__all__ = ["ext4_disk"]


@contextlib.contextmanager
def ext4_disk(top: Path, mebibytes: int) -> Iterator[Path]:
    """Return the mount of a new file system for the block."""
    image, point = top / "disk", top / "ext4"
    write_bytes(image, b"")
    os.truncate(image, mebibytes << 20)
    run([require("mke2fs", "e2fsprogs"), "-q", "-t", "ext4", image], timeout=60)
    point.mkdir()
    load_module("ext4")
    backing = os.open(image, os.O_RDWR)
    try:
        device, held = attach_loop(backing, "disk", writable=True)
    finally:
        os.close(backing)
    try:
        mount("ext4", point, source=os.fspath(device))
    finally:
        os.close(held)
    try:
        yield point
    finally:
        unmount(point, detach=True)
