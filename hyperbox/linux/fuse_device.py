"""A FUSE file system that is one regular file, over /dev/fuse. Follows <linux/fuse.h>.

The root of such a mount is the file itself (``rootmode`` of a regular file), mounted over another
file, which every kernel since 5.10 takes. Protocol 7.31 (Linux 5.4) is spoken.

A descriptor of ``/dev/fuse`` has requests of its own that were read from it and not answered.
When it is closed, by a death as well, they fail with ECONNABORTED, and when the last one of a
mount is closed, everything fails (fuse_dev_release() of fs/fuse/dev.c). So a supervisor holds the
descriptor of the mount, which is read by nobody, and each worker reads from a clone of it
(``FUSE_DEV_IOC_CLONE``, Linux 4.2): what a dead worker had taken ends with an error, what it had
not taken waits for the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from hyperbox.linux.modules import load_module
from hyperbox.linux.mounts import mount
from hyperbox.linux.refusal import refusal

__all__ = ["FuseRequest", "Opcode", "clone_device", "mount_file", "open_device", "read_request"]

_DEVICE = Path("/dev/fuse")
_ABSENT = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM)
_CLONE = 0x8004E500  # FUSE_DEV_IOC_CLONE: _IOR(229, 0, uint32_t)
_IN = struct.Struct("=IIQQIIIHH")  # struct fuse_in_header
_OUT = struct.Struct("=IiQ")  # struct fuse_out_header
_INIT_IN = struct.Struct("=IIII")
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
_ATTR = struct.Struct("=QQQQQQIIIIIIIIII")
_ATTR_OUT = struct.Struct("=QII")
_OPEN_OUT = struct.Struct("=QII")
_READ_IN = struct.Struct("=QQI")
_STATFS_OUT = struct.Struct("=QQQQQIIII24x")
_MAJOR, _MINOR = 7, 31
_ASYNC_READ, _MAX_PAGES = 1 << 0, 1 << 22
_KEEP_CACHE = 1 << 1
_LARGEST_READ = 1 << 20
_BUFFER = _LARGEST_READ + 4096
_FLAGS = 1 | 2 | 4  # MS_RDONLY, MS_NOSUID, MS_NODEV
_ALWAYS_S = 1 << 31  # attributes never change


class Opcode(IntEnum):
    """Requests that the mount of a file gets."""

    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42


_UNANSWERED = (Opcode.FORGET, Opcode.INTERRUPT, Opcode.BATCH_FORGET)
_EMPTY = (Opcode.RELEASE, Opcode.FLUSH, Opcode.DESTROY)


@dataclass(frozen=True)
class FuseRequest:
    """A request that was read from a device, to be answered there."""

    device: int
    opcode: int
    unique: int
    body: bytes

    @property
    def asked(self) -> tuple[int, int]:
        """Return offset and length of a READ."""
        _, offset, length = _READ_IN.unpack_from(self.body)
        return offset, length

    def answer(self, data: bytes) -> None:
        """Answer with data; harmless if the reader has gone."""
        self._reply(data, 0)

    def fail(self, number: int) -> None:
        """Answer with an errno."""
        self._reply(b"", -number)

    def answer_about(self, size: int) -> bool:
        """Answer what asks about a file of so many bytes; False for a READ, which is not."""
        if self.opcode == Opcode.READ:
            return False
        if self.opcode == Opcode.INIT:
            self.answer(_init(self.body))
        elif self.opcode == Opcode.GETATTR:
            self.answer(_ATTR_OUT.pack(_ALWAYS_S, 0, 0) + _attributes(size))
        elif self.opcode == Opcode.OPEN:
            self.answer(_OPEN_OUT.pack(1, _KEEP_CACHE, 0))
        elif self.opcode == Opcode.STATFS:
            self.answer(_STATFS_OUT.pack(-(-size // 4096), 0, 0, 1, 0, 4096, 255, 4096, 0))
        elif self.opcode in _EMPTY:
            self.answer(b"")
        elif self.opcode not in _UNANSWERED:
            self.fail(errno.ENOSYS)
        return True

    def _reply(self, data: bytes, error: int) -> None:
        try:
            os.writev(self.device, [_OUT.pack(_OUT.size + len(data), error, self.unique), data])
        except OSError as refused:
            if refused.errno not in (errno.ENOENT, errno.ENODEV):  # interrupted; unmounted
                raise


def open_device() -> int:
    """Return a new descriptor of ``/dev/fuse``.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no FUSE.
    """
    load_module("fuse")
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise refusal(f"no FUSE: cannot open {_DEVICE}", error, missing=_ABSENT) from error


def clone_device(device: int) -> int:
    """Return another descriptor for requests of the same mount; reading does not block."""
    clone = open_device()
    try:
        fcntl.ioctl(clone, _CLONE, struct.pack("=I", device))
        os.set_blocking(clone, False)
    except BaseException:
        os.close(clone)
        raise
    return clone


def mount_file(device: int, point: Path, *, name: str = "hyperbox") -> None:
    """Mount a read-only file over the file at `point`; it is served through `device`.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no FUSE.
    WorkloadError
        If the kernel refuses.
    """
    mode = stat.S_IFREG | 0o444
    options = (
        f"fd={device},rootmode={mode:o},user_id=0,group_id=0,allow_other,max_read={_LARGEST_READ}"
    )
    mount("fuse", point, source=name, flags=_FLAGS, options=options)


def read_request(device: int) -> FuseRequest | None:
    """Return the next request; None if there is none now.

    Raises
    ------
    OSError
        ENODEV once the file system is unmounted.
    """
    try:
        data = os.read(device, _BUFFER)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EINTR, errno.ENOENT):  # the last: interrupted
            return None
        raise
    _, opcode, unique, *_ = _IN.unpack_from(data)
    return FuseRequest(device, opcode, unique, data[_IN.size :])


def _init(body: bytes) -> bytes:
    _, _, ahead, offered = _INIT_IN.unpack_from(body)
    flags = offered & (_ASYNC_READ | _MAX_PAGES)
    pages = _LARGEST_READ // 4096
    return _INIT_OUT.pack(_MAJOR, _MINOR, ahead, flags, 64, 48, _LARGEST_READ, 1, pages, 0, 0)


def _attributes(size: int) -> bytes:
    blocks = -(-size // 512)
    mode = stat.S_IFREG | 0o444
    return _ATTR.pack(1, size, blocks, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
