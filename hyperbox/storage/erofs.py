"""Images of the store as file systems: the way that this kernel has, converted and mounted.

>>> from pathlib import Path
>>> from hyperbox.storage.erofs import mounted
>>> from hyperbox.storage.images import ImageStore
>>> with mounted(ImageStore(), "docker.io/library/debian:13", Path("/mnt")) as (point, choice):
...     print(choice.reason)  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import ConfigError, ImageError
from hyperbox.files import explained
from hyperbox.journal import begin
from hyperbox.linux.mounts import MOUNT, mount, mounts, unmount
from hyperbox.storage.artifacts import complete
from hyperbox.storage.conversion import Converted, Converter
from hyperbox.storage.converted_pruning import prune_converted
from hyperbox.storage.image_mounts import OVERLAY_SOURCE
from hyperbox.storage.images import Image, ImageStore
from hyperbox.storage.ladder import Choice, Enabled, choose, probed
from hyperbox.storage.layer_reading import Layer
from hyperbox.storage.limits import Limits
from hyperbox.storage.rung import Rung

__all__ = [
    "convert",
    "converter_of",
    "is_ready",
    "layers_of",
    "lazy_point",
    "mount_image",
    "mounted",
    "prune_conversions",
    "rung_for",
    "umount",
]

_BIND = 0x1000  # MS_BIND of linux/mount.h


def layers_of(store: ImageStore, image: Image) -> tuple[Layer, ...]:
    """Return an image's layers, the lowest first.

    Raises
    ------
    ImageError
        If its configuration names another number of layers than its manifest.
    """
    descriptors, diff_ids = image.manifest.layers, image.config.diff_ids
    if len(descriptors) != len(diff_ids):
        raise ImageError(
            f"image {image.name} has {len(descriptors)} layers, and diff IDs of {len(diff_ids)}"
        )
    return tuple(
        Layer(store.blobs.path(one.digest), one.media_type, diff_id)
        for one, diff_id in zip(descriptors, diff_ids, strict=True)
    )


def is_ready(store: ImageStore, image: Image) -> bool:
    """Whether a ready image was pulled in place of an image's layers."""
    if all(store.blobs.has(one) for one in image.manifest.layers):
        return False
    return complete(converter_of(store).image(layers_of(store, image), Rung.LAYERS).manifest)


def lazy_point(store: ImageStore, image: Image) -> Path:
    """Return where an image is mounted while it is loaded lazily (``hyperbox pull --lazy``)."""
    return store.root / "lazy" / image.descriptor.digest.replace(":", "-")


def converter_of(store: ImageStore, limits: Limits | None = None) -> Converter:
    """Return what converts images of a store, beside them."""
    return Converter(store.root, limits)


def rung_for(
    store: ImageStore, enabled: Enabled, rung: Rung | None = None, name: str = ""
) -> Choice:
    """Return the rung that this kernel has, or the one that is asked for, with the reason.

    Parameters
    ----------
    name
        An image: if it was pulled as its ready one, that is what is mounted.

    Raises
    ------
    KernelFeatureMissing
        If no rung works, or EROFS has to be and does not.
    """
    if rung is not None:
        return Choice(rung, "asked for", {})
    if name and enabled is not Enabled.OFF and is_ready(store, store.find(name)):
        return Choice(Rung.LAYERS, "its ready image was pulled", {})
    place = store.root / "converted"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, place) from error
    return choose(enabled, probed(place=place))


def convert(
    store: ImageStore, name: str, choice: Choice, limits: Limits | None = None
) -> Converted:
    """Return an image of the store as a rung mounts it, made if it is not there.

    Raises
    ------
    ConfigError
        If there is no such image.
    ImageError
        If a layer is broken or hostile.
    """
    layers = layers_of(store, store.find(name))
    return converter_of(store, limits).convert(layers, choice.rung)


@contextlib.contextmanager
def mounted(
    store: ImageStore,
    name: str,
    point: Path,
    enabled: Enabled = Enabled.AUTO,
    *,
    rung: Rung | None = None,
    limits: Limits | None = None,
) -> Iterator[tuple[Path, Choice]]:
    """Mount an image read-only for the block; yield where, and the rung with its reason.

    Journalled: ``hyperbox doctor --repair`` unmounts what a killed process left.

    Raises
    ------
    HyperboxError
        As `rung_for` and `convert`, and if the kernel refuses.
    """
    lazy = lazy_point(store, store.find(name)).resolve()
    if rung is None and enabled is not Enabled.OFF and _is_mounted(lazy):
        with contextlib.ExitStack() as stack:
            stack.callback(begin(MOUNT, point, file_system="erofs").undo)
            mount("none", point, source=os.fspath(lazy), flags=_BIND)
            yield point, Choice(Rung.EROFS, "it is mounted lazily", {})
        return
    choice = rung_for(store, enabled, rung, name)
    image = convert(store, name, choice, limits)
    with converter_of(store).mounted(image, point):
        yield point, choice


def _is_mounted(point: Path) -> bool:
    return any(one.point == point for one in mounts("erofs"))


def mount_image(
    store: ImageStore,
    name: str,
    point: Path,
    enabled: Enabled = Enabled.AUTO,
    *,
    rung: Rung | None = None,
    limits: Limits | None = None,
) -> Choice:
    """Mount an image read-only until `umount`; return the rung with its reason.

    Raises as `mounted`, and `ConfigError` if `point` is not a directory.
    """
    if not point.is_dir():
        raise ConfigError(f"{point} is not a directory", hint="make it first")
    point = point.resolve()
    scratch = Path(tempfile.mkdtemp(prefix="hyperbox-"))
    try:
        with mounted(store, name, scratch, enabled, rung=rung, limits=limits) as (_, choice):
            kind = "erofs" if choice.rung is Rung.EROFS else "overlay"
            record = begin(MOUNT, point, file_system=kind)
            try:
                mount("none", point, source=str(scratch), flags=_BIND)
            except BaseException:
                record.undo()
                raise
            record.forget()  # it is the user's from here on
    finally:
        with contextlib.suppress(OSError):  # what could not be unmounted has said so
            scratch.rmdir()
    return choice


def prune_conversions(store: ImageStore) -> tuple[int, int]:
    """Remove what was converted of images that the store has no more; return files and bytes.

    Raises
    ------
    HarnessError
        If images are mounted.
    """
    kept = []
    for image in store.images():
        with contextlib.suppress(ImageError):  # an artifact: it has no files to mount
            kept.append(layers_of(store, image))
    return prune_converted(store.root, kept)


def umount(point: Path) -> None:
    """Unmount an image.

    Raises
    ------
    ConfigError
        If no image is mounted there.
    WorkloadError
        If it is in use.
    """
    point = point.resolve()
    images = [one.point for one in mounts("erofs")]
    images += [one.point for one in mounts("overlay") if one.source == OVERLAY_SOURCE]
    if point not in images:
        raise ConfigError(f"no image is mounted on {point}", hint="see /proc/self/mountinfo")
    unmount(point)
