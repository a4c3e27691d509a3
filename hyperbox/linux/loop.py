"""Loop devices: a file as a block device. Follows loop(4) and <linux/loop.h>.

A file system mounts from a loop device where the kernel cannot mount it from the file itself,
such as EROFS before 6.12.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.linux.modules import load_module
from hyperbox.linux.refusal import refusal

__all__ = ["attach_loop", "change_loop_file"]

_CONTROL = Path("/dev/loop-control")
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A  # LOOP_CTL_GET_FREE, LOOP_CONFIGURE (Linux 5.8)
_CHANGE_FD = 0x4C06  # LOOP_CHANGE_FD
_READ_ONLY, _AUTOCLEAR = 1, 4  # LO_FLAGS_*
# struct loop_config: fd and block size, struct loop_info64 and eight reserved words. Of the
# second only the flags and the file's name matter here.
_CONFIG = struct.Struct("=II 40x 3I I 64s 112x 64x")
_ABSENT = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM)
_ATTEMPTS = 64


def attach_loop(
    backing: int, name: str = "", *, block_size: int = 512, writable: bool = False
) -> tuple[Path, int]:
    """Attach a file to a free loop device; return its path and a descriptor of it.

    The device goes when it is no longer open nor mounted (``LO_FLAGS_AUTOCLEAR``): close the
    descriptor after the mount.

    Parameters
    ----------
    backing
        Descriptor of the file; the kernel takes a reference of its own.
    name
        What the device says of the file in sysfs; at most 63 bytes are kept.
    writable
        Whether the device can be written to; `backing` has to be, too.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no loop devices.
    WorkloadError
        If none can be attached.
    """
    load_module("loop")
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise refusal(f"no loop devices: cannot open {_CONTROL}", error, missing=_ABSENT) from error
    try:
        flags = _AUTOCLEAR | (0 if writable else _READ_ONLY)
        config = _CONFIG.pack(backing, block_size, 0, 0, 0, flags, os.fsencode(name)[:63])
        for _ in range(_ATTEMPTS):  # another process may take the same one first: EBUSY
            device = Path(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}")
            handle = _configured(device, config, os.O_RDWR if writable else os.O_RDONLY)
            if handle is not None:
                return device, handle
    except OSError as error:
        raise refusal("cannot attach a loop device", error) from error
    finally:
        os.close(control)
    raise WorkloadError(f"no loop device can be attached: {_ATTEMPTS} were taken by others")


def change_loop_file(device: Path, backing: int) -> None:
    """Let a read-only device, in use or not, read another file of the same size from now on.

    Raises
    ------
    WorkloadError
        If the kernel refuses: another size, or a device that can be written to.
    """
    try:
        handle = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(handle, _CHANGE_FD, backing)
        finally:
            os.close(handle)
    except OSError as error:
        raise refusal(f"cannot change the file of {device}", error) from error


def _configured(device: Path, config: bytes, access: int) -> int | None:
    handle = os.open(device, access | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, _CONFIGURE, ctypes.create_string_buffer(config, len(config)))
    except OSError as error:
        os.close(handle)
        if error.errno == errno.EBUSY:
            return None
        raise
    except BaseException:
        os.close(handle)
        raise
    return handle
