"""How an image is mounted on each rung: EROFS with blobs beside it, composefs, overlayfs.

Every mount is read-only and journalled. Blobs and layers are named by descriptors of this process
(``/proc/self/fd/N``): options fit one page, so 128 paths would not.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing
from hyperbox.journal import begin, undoing
from hyperbox.linux.loop import attach_loop
from hyperbox.linux.modules import load_module
from hyperbox.linux.mounts import MOUNT, mount, unmount

__all__ = [
    "OVERLAY_SOURCE",
    "composefs_mounted",
    "erofs_mounted",
    "layers_mounted",
    "overlay_mounted",
]

OVERLAY_SOURCE = "hyperbox"
"""What mountinfo says an image's overlayfs is mounted from."""

_READ_ONLY = 1  # MS_RDONLY of linux/mount.h


@contextlib.contextmanager
def erofs_mounted(image: Path, blobs: Sequence[Path], point: Path) -> Iterator[Path]:
    """Mount an EROFS image for the block, its blobs in the order of their numbers.

    Files are mounted as they are from Linux 6.12 on (commit fb176750266a), else by loop devices.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no EROFS.
    WorkloadError
        If it refuses the image.
    """
    with undoing(MOUNT, point, file_system="erofs"):
        _mount_erofs(image, blobs, point)
        yield point


@contextlib.contextmanager
def composefs_mounted(image: Path, objects: Path, point: Path) -> Iterator[Path]:
    """Mount a composefs image over its objects for the block; raises as `erofs_mounted`."""
    load_module("overlay")
    with contextlib.ExitStack() as stack:
        below = stack.enter_context(_directories(1))[0]
        record = begin(MOUNT, below, file_system="erofs")
        stack.callback(record.undo)
        _mount_erofs(image, (), below)
        stack.enter_context(undoing(MOUNT, point, file_system="overlay"))
        with _descriptors((below, objects)) as names:
            # ":" and not "::": what 6.5 and later keep apart, the image's whiteouts hide.
            lower = f"lowerdir={names[0]}:{names[1]},metacopy=on,redirect_dir=on"
            mount("overlay", point, source=OVERLAY_SOURCE, flags=_READ_ONLY, options=lower)
        unmount(below)  # overlayfs has a mount of its own of it
        record.forget()
        yield point


@contextlib.contextmanager
def overlay_mounted(layers: Sequence[Path], point: Path) -> Iterator[Path]:
    """Mount two unpacked layers or more, the lowest first, for the block.

    Raises as `erofs_mounted`.
    """
    load_module("overlay")
    with undoing(MOUNT, point, file_system="overlay"):
        with _descriptors(layers[::-1]) as names:
            lower = f"lowerdir={':'.join(names)}"
            mount("overlay", point, source=OVERLAY_SOURCE, flags=_READ_ONLY, options=lower)
        yield point


@contextlib.contextmanager
def layers_mounted(empty: Path, images: Sequence[Path], point: Path) -> Iterator[Path]:
    """Mount an EROFS image for each layer, the lowest first, for the block.

    Raises as `erofs_mounted`.

    Parameters
    ----------
    empty
        An empty directory that stays: overlayfs wants two layers at least, and reads nothing any
        more once one of them is removed.
    """
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as below:
        places = below.enter_context(_directories(len(images)))
        for image, place in zip(images, places, strict=True):
            below.enter_context(erofs_mounted(image, (), place))
        stack.enter_context(overlay_mounted((empty, *places), point))
        below.close()  # overlayfs has mounts of its own of them
        yield point


def _mount_erofs(image: Path, blobs: Sequence[Path], point: Path) -> None:
    load_module("erofs")
    try:
        with _descriptors(blobs) as names:
            _mount_devices(image, names, point)
    except KernelFeatureMissing:  # ENOTBLK: this kernel wants block devices
        with _loops((image, *blobs)) as names:
            _mount_devices(Path(names[0]), names[1:], point)


def _mount_devices(source: Path, names: Sequence[str], point: Path) -> None:
    options = ",".join(f"device={name}" for name in names)
    mount("erofs", point, source=os.fspath(source), flags=_READ_ONLY, options=options)


@contextlib.contextmanager
def _directories(count: int) -> Iterator[list[Path]]:
    """Return empty directories for the block; what is still mounted on one stays untouched."""
    top = Path(tempfile.mkdtemp(prefix="hyperbox-"))
    places = [top / str(number) for number in range(count)]
    try:
        for place in places:
            place.mkdir()
        yield places
    finally:
        with contextlib.suppress(OSError):  # what could not be unmounted has said so
            for place in places:
                place.rmdir()
            top.rmdir()


@contextlib.contextmanager
def _descriptors(paths: Sequence[Path]) -> Iterator[list[str]]:
    """Return short names of paths that hold for the block."""
    handles: list[int] = []
    try:
        for path in paths:
            handles.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        yield [f"/proc/self/fd/{handle}" for handle in handles]
    finally:
        for handle in handles:
            os.close(handle)


@contextlib.contextmanager
def _loops(paths: Sequence[Path]) -> Iterator[list[str]]:
    """Return loop devices of files; each goes with the last mount that uses it."""
    handles: list[int] = []
    names = []
    try:
        for path in paths:
            backing = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                name, handle = attach_loop(backing, path.name)
            finally:
                os.close(backing)
            handles.append(handle)
            names.append(os.fspath(name))
        yield names
    finally:
        for handle in handles:
            os.close(handle)
