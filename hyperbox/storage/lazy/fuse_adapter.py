"""An image as a file that FUSE serves, mounted as it is (Linux 6.12) or through a loop device."""

from __future__ import annotations

import os
from pathlib import Path

from hyperbox.files import write_bytes
from hyperbox.linux.fuse_device import mount_file, open_device
from hyperbox.linux.mounts import unmount
from hyperbox.storage.lazy.fuse_server import FuseServer
from hyperbox.storage.lazy.lazy_image import LazyImage

__all__ = ["FuseAdapter"]


class FuseAdapter:
    """As `hyperbox.storage.lazy.mechanism.Adapter` says."""

    def begin(self, image: LazyImage, place: Path) -> int:
        """Mount the file; requests wait until it is served."""
        device = open_device()
        try:
            write_bytes(place, b"", 0o600)
            mount_file(device, place)
        except BaseException:
            os.close(device)
            raise
        return device

    def serve(self, image: LazyImage, descriptor: int, place: Path) -> FuseServer:
        """Answer requests."""
        return FuseServer(image, descriptor)

    def source(self, image: LazyImage, place: Path) -> Path:
        """Return where FUSE's file is mounted."""
        return place

    def end(self, image: LazyImage, descriptor: int, place: Path) -> None:
        """Unmount the file."""
        unmount(place, detach=True)
        os.close(descriptor)
        place.unlink(missing_ok=True)

    def releases(self, image: LazyImage, descriptor: int, place: Path) -> bool:
        """Return False: what is mounted from FUSE's file is read through it to the end."""
        return False
