"""An image set of the six classes, converted for a rung: what both scenes begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.files import write_bytes
from hyperbox.storage.conversion import Converter
from hyperbox.storage.layer_reading import Layer
from hyperbox.storage.rung import Rung
from workloads.images import CLASSES, image_layers

__all__ = ["ImageSet", "allocated", "write_images"]

_TYPE = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class ImageSet:
    """Images by name, their layers below a directory."""

    directory: Path
    images: Mapping[str, Sequence[Layer]]

    def converted(self, rung: Rung) -> Path:
        """Convert all of them for a rung in a store of its own; return the store."""
        store = self.directory / f"store-{rung}"
        converter = Converter(store)
        for layers in self.images.values():
            converter.convert(layers, rung)
        return store


def write_images(directory: Path, seed: int, scale: float) -> ImageSet:
    """Write the layers of every class; equal ones once."""
    images = {}
    for name in CLASSES:
        layers = []
        for made in image_layers(name, seed, scale):
            path = directory / f"{made.diff_id.partition(':')[2]}.tar"
            if not path.exists():
                write_bytes(path, made.archive)
            layers.append(Layer(path, _TYPE, made.diff_id))
        images[name] = layers
    return ImageSet(directory, images)


def allocated(top: Path) -> int:
    """Return the bytes that the files below a directory take on disk; hard links count once."""
    sizes = {}
    for path in top.rglob("*"):
        facts = path.lstat()
        sizes[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return sum(sizes.values())
