"""A tiny image by which a rung is tried."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hyperbox.files import write_bytes
from hyperbox.storage.conversion import Converter
from hyperbox.storage.layer_reading import Layer
from hyperbox.storage.listing import differences, list_directory, list_tree
from hyperbox.storage.rung import Rung
from hyperbox.storage.tar_writer import archive_end, tar_member

__all__ = ["try_rung"]


def try_rung(rung: Rung, directory: Path) -> str:
    """Return why images do not show their files on a rung; "" if they do.

    Parameters
    ----------
    directory
        Empty, and thrown away afterwards.

    Raises
    ------
    HyperboxError, OSError
        If the kernel refuses to mount or to read.
    """
    layers = [_layer(directory, name, data) for name, data in _FILES.items()]
    converter = Converter(directory / "store")
    point = directory / "mount"
    point.mkdir()
    with converter.mounted(converter.convert(layers, rung), point):
        wrong = list(differences(list_tree(converter.tree(layers)), list_directory(point)))
    return f"its trial image shows other files: {wrong[0]}" if wrong else ""


_FILES = {"short": b"within the metadata", "long": bytes(range(256)) * 40}


def _layer(directory: Path, name: str, data: bytes) -> Layer:
    """Write a layer with one file."""
    archive = tar_member(name.encode(), data) + archive_end()
    path = directory / f"{name}.tar"
    write_bytes(path, archive)
    return Layer(path, "", f"sha256:{hashlib.sha256(archive).hexdigest()}")
