"""The ways to mount an image, the best one first."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Rung"]


class Rung(StrEnum):
    """A way to mount an image; every one shows the same tree."""

    EROFS = "erofs"
    """Names and metadata in one EROFS image, data in a blob for each layer (Linux 5.16)."""
    COMPOSEFS = "composefs"
    """Names and metadata in an EROFS image, data in files by digest, joined by overlayfs."""
    OVERLAY = "overlay"
    """Each layer unpacked to a directory, joined by overlayfs."""
