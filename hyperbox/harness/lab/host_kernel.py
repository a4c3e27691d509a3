"""The kernel that this machine runs, to boot it in a guest."""

from __future__ import annotations

import os
from pathlib import Path

from hyperbox.errors import MissingDependency

__all__ = ["RUNNING", "running_kernel"]

RUNNING = "host"
"""How the running kernel is asked for on the command line."""
_IMAGES = ("boot/vmlinuz-{release}", "usr/lib/modules/{release}/vmlinuz")
_MODULES = ("usr/lib/modules/{release}", "lib/modules/{release}")


def running_kernel(root: Path = Path("/"), release: str = "") -> tuple[Path, Path | None]:
    """Return image and modules of the running kernel; None if it has no modules on disk.

    Parameters
    ----------
    root
        Where ``/boot`` and ``/usr`` are.
    release
        ``uname -r``; by default that of this machine.

    Raises
    ------
    MissingDependency
        If the image is not there, as in containers and in guests that are booted from outside.
    """
    release = release or os.uname().release
    images = [root / place.format(release=release) for place in _IMAGES]
    image = next((path for path in images if path.is_file()), None)
    if image is None:
        raise MissingDependency(
            f"the image of the running kernel {release} is neither {images[0]} nor {images[1]}",
            hint="install its package (linux-image-$(uname -r)); in a container, copy the host's "
            "files and give --kernel PATH, or choose a packaged kernel such as 6.12",
        )
    modules = (root / place.format(release=release) for place in _MODULES)
    return image, next((path for path in modules if path.is_dir()), None)
