"""The ways to mount an image."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["LADDER", "Rung"]


class Rung(StrEnum):
    """A way to mount an image; every one shows the same tree."""

    EROFS = "erofs"
    """Names and metadata in one EROFS image, data in a blob for each layer (Linux 5.16)."""
    LAYERS = "layers"
    """An EROFS image for each layer, joined by overlayfs, as containerd has them; any kernel."""
    COMPOSEFS = "composefs"
    """Names and metadata in an EROFS image, data in files by digest, joined by overlayfs."""
    OVERLAY = "overlay"
    """Each layer unpacked to a directory, joined by overlayfs."""


LADDER = (Rung.EROFS, Rung.COMPOSEFS, Rung.OVERLAY)
"""The rungs that are taken by themselves, the best one first; `Rung.LAYERS` is for who asks."""
