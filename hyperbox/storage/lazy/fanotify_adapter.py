"""An image as the cache's sparse file, filled before its bytes are read (Linux 6.14)."""

from __future__ import annotations

import os
from pathlib import Path

from hyperbox.linux.fanotify import mark_file, open_group, unmark_file
from hyperbox.storage.lazy.fanotify_guard import start_guard
from hyperbox.storage.lazy.fanotify_server import FanotifyServer
from hyperbox.storage.lazy.lazy_image import LazyImage

__all__ = ["FanotifyAdapter"]


class FanotifyAdapter:
    """As `hyperbox.storage.lazy.mechanism.Adapter` says."""

    def begin(self, image: LazyImage, place: Path) -> int:
        """Mark the file; readers wait until it is served."""
        group = open_group()
        try:
            mark_file(group, image.cached.data)
            start_guard(group, _guarded(place))
        except BaseException:
            os.close(group)
            raise
        return group

    def serve(self, image: LazyImage, descriptor: int, place: Path) -> FanotifyServer:
        """Answer events; what a dead process had taken is denied first."""
        return FanotifyServer(image, descriptor, _guarded(place))

    def source(self, image: LazyImage, place: Path) -> Path:
        """Return the cache's file."""
        return image.cached.data

    def end(self, image: LazyImage, descriptor: int, place: Path) -> None:
        """Remove the mark, and let the guard end."""
        unmark_file(descriptor, image.cached.data)
        _guarded(place).unlink(missing_ok=True)
        os.close(descriptor)

    def releases(self, image: LazyImage, descriptor: int, place: Path) -> bool:
        """Remove the mark: the kernel reads the file as it reads any other."""
        unmark_file(descriptor, image.cached.data)
        _guarded(place).unlink(missing_ok=True)
        return True


def _guarded(place: Path) -> Path:
    """Return the file that is locked by who serves; the guard lives as long as it."""
    return place.with_suffix(".guard")
