"""Loads on file systems and the page cache, all storage in the machine's memory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.linux.mounts import mount, unmount
from hyperbox.linux.namespaces import own_mounts
from hyperbox.linux.null_blk import null_block_device
from suites.harness.load import BackgroundLoad, Ready

__all__ = ["EROFS", "PAGE_CACHE", "TMPFS"]

_SIZE = 64 << 10  # bytes written and read by a unit
_DISK_MIB = 16
_LATENCY_NS = 100_000  # of one request: a fast SSD
_MAGIC = 0xE0F5E1E2.to_bytes(4, "little")  # of an EROFS superblock, 1024 bytes from the start
_READ_ONLY = 1  # MS_RDONLY of linux/mount.h
_DEVICES = Path("/dev")
_FILES = 8  # read in each mounted image


@contextlib.contextmanager
def _tmpfs() -> Iterator[Ready]:
    with _own_directory() as directory:
        mount("tmpfs", directory)
        path, data = directory / "file", bytes(_SIZE)

        def unit() -> None:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _write_and_read(handle, data, 0)
            finally:
                os.close(handle)
            path.unlink()

        yield Ready(unit)


@contextlib.contextmanager
def _page_cache() -> Iterator[Ready]:
    """Write to a disk through the page cache, drop the pages, read them back."""
    with _disk(_DISK_MIB) as disk:
        handle = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
        try:
            data = bytes(_SIZE)

            def unit() -> None:
                os.pwrite(handle, data, 0)
                os.fdatasync(handle)
                os.posix_fadvise(handle, 0, _SIZE, os.POSIX_FADV_DONTNEED)
                if len(os.pread(handle, _SIZE, 0)) != _SIZE:
                    raise WorkloadError("the disk gave less than was written")

            yield Ready(unit)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _erofs() -> Iterator[Ready]:
    """Mount an EROFS image from a disk, read files in it, unmount it."""
    image = _smallest_image()
    with _disk(len(image) + (1 << 20) - 1 >> 20) as disk, _own_directory() as directory:
        _fill(disk, image)

        def unit() -> None:
            mount("erofs", directory, source=str(disk), flags=_READ_ONLY)
            try:
                for path in paths:
                    path.read_bytes()
            finally:
                unmount(directory)

        paths: list[Path] = []
        unit()
        mount("erofs", directory, source=str(disk), flags=_READ_ONLY)
        paths += sorted(path for path in directory.rglob("*.py") if path.stat().st_size)[:_FILES]
        unmount(directory)
        if len(paths) < _FILES:
            raise WorkloadError(f"the image has {len(paths)} files to read, not {_FILES}")
        yield Ready(unit)


def _write_and_read(handle: int, data: bytes, offset: int) -> None:
    os.pwrite(handle, data, offset)
    if len(os.pread(handle, len(data), offset)) != len(data):
        raise WorkloadError("a file gave less than was written")


@contextlib.contextmanager
def _own_directory() -> Iterator[Path]:
    """Return a directory whose mounts vanish with this process."""
    with tempfile.TemporaryDirectory(prefix="hyperbox-harness-") as name:
        own_mounts()
        try:
            yield Path(name)
        finally:
            with contextlib.suppress(WorkloadError):  # it is mounted in one load only
                unmount(Path(name))


@contextlib.contextmanager
def _disk(size_mib: int) -> Iterator[Path]:
    name = f"hyperbox{os.getpid()}"
    with null_block_device(name, size_mib=size_mib, latency_ns=_LATENCY_NS) as disk:
        yield disk


def _smallest_image() -> bytes:
    """Return the smallest EROFS image among the machine's memory disks: guests are made of them."""
    found = []
    for device in sorted(_DEVICES.glob("pmem*")):
        with device.open("rb") as stream:
            stream.seek(1024)
            head = stream.read(128)
            blocks = int.from_bytes(head[36:40], "little")  # of `1 << head[12]` bytes
            if head.startswith(_MAGIC):
                found.append((blocks << head[12], device))
    if not found:
        raise WorkloadError(
            "this machine has no EROFS image on a memory disk (/dev/pmem*)",
            hint="measure it in a guest: --target vm",
        )
    size, device = min(found)
    with device.open("rb") as stream:
        return stream.read(size)


def _fill(disk: Path, image: bytes) -> None:
    handle = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(handle, image, 0)
        os.fsync(handle)
    finally:
        os.close(handle)


TMPFS = BackgroundLoad(1000, _tmpfs)
PAGE_CACHE = BackgroundLoad(400, _page_cache)
EROFS = BackgroundLoad(200, _erofs)
