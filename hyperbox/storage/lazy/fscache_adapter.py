"""An image that EROFS reads over fscache; so far it says only why a kernel cannot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from hyperbox.errors import KernelFeatureMissing
from hyperbox.linux.cachefiles import open_on_demand
from hyperbox.storage.lazy.lazy_image import LazyImage

__all__ = ["FscacheAdapter"]


class FscacheAdapter:
    """As `hyperbox.storage.lazy.mechanism.Adapter` says; nothing begins."""

    def begin(self, image: LazyImage, place: Path) -> NoReturn:
        """Ask the kernel for the on-demand mode, and refuse."""
        os.close(open_on_demand(image.cached.directory, "hyperbox-trial"))
        raise KernelFeatureMissing("fscache: this kernel has it, and hyperbox serves none yet")

    def serve(self, image: LazyImage, descriptor: int, place: Path) -> NoReturn:
        """Refuse: nothing was begun."""
        raise KernelFeatureMissing("fscache: nothing is served")

    def source(self, image: LazyImage, place: Path) -> Path:
        """Return the cache's file."""
        return image.cached.data

    def end(self, image: LazyImage, descriptor: int, place: Path) -> None:
        """Do nothing."""

    def releases(self, image: LazyImage, descriptor: int, place: Path) -> bool:
        """Return False."""
        return False
