"""Cachefiles on demand: EROFS over fscache asks for what its cache lacks.

Follows Documentation/filesystems/caching/cachefiles.rst, "On-demand Read". Linux 5.19 to 7.1, where
CONFIG_CACHEFILES_ONDEMAND is set; no Debian kernel sets it, and 7.2 has removed EROFS's part
(c37460cd9b2f).
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from hyperbox.linux.modules import load_module
from hyperbox.linux.refusal import refusal

__all__ = ["CacheMessage", "CacheOpcode", "open_on_demand", "parse_message"]

_DEVICE = Path("/dev/cachefiles")
_HEADER = struct.Struct("=IIII")  # struct cachefiles_msg
_OPEN = struct.Struct("=IIII")  # struct cachefiles_open, before its keys
_READ = struct.Struct("=QQ")  # struct cachefiles_read


class CacheOpcode(IntEnum):
    """What the kernel asks for."""

    OPEN = 0
    CLOSE = 1
    READ = 2


@dataclass(frozen=True)
class CacheMessage:
    """A question of the kernel about one object of the cache."""

    number: int
    """Answers name it: ``copen NUMBER,SIZE``, or the ioctl that completes a read."""
    opcode: CacheOpcode
    object: int
    volume: str = ""
    cookie: str = ""
    """Of an OPEN: the object's name."""
    descriptor: int = -1
    """Of an OPEN: where the object's bytes are written to."""
    offset: int = 0
    length: int = 0


def open_on_demand(directory: Path, tag: str) -> int:
    """Bind the machine's cachefiles device to a cache in on-demand mode; return its descriptor.

    Parameters
    ----------
    directory
        On a file system with user attributes, such as ext4.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no cachefiles, or not on demand (EINVAL).
    WorkloadError
        On any other refusal, such as EBUSY: another process has the device.
    """
    load_module("cachefiles")
    what = f"no cachefiles on demand: {_DEVICE}"
    try:
        device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise refusal(what, error, missing=(errno.ENOENT, errno.ENODEV)) from error
    try:
        for command in (f"dir {directory}", f"tag {tag}", "bind ondemand"):
            os.write(device, command.encode())
    except OSError as error:
        os.close(device)
        raise refusal(f"{what}: {command}", error, missing=(errno.EINVAL,)) from error
    return device


def parse_message(data: bytes) -> CacheMessage:
    """Return the message that a read of the device has returned; pure.

    Raises
    ------
    ValueError
        If it is of an unknown shape.
    """
    if len(data) < _HEADER.size:
        raise ValueError("a cachefiles message without a header")
    number, opcode, length, object_id = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if length != len(data) or opcode not in tuple(CacheOpcode):
        raise ValueError(f"a cachefiles message of unknown shape: opcode {opcode}")
    kind = CacheOpcode(opcode)
    if kind is CacheOpcode.CLOSE:
        return CacheMessage(number, kind, object_id)
    if kind is CacheOpcode.READ:
        if len(body) != _READ.size:
            raise ValueError(f"a cachefiles read of {len(body)} bytes")
        offset, count = _READ.unpack(body)
        return CacheMessage(number, kind, object_id, offset=offset, length=count)
    if len(body) < _OPEN.size:
        raise ValueError(f"a cachefiles open of {len(body)} bytes")
    volume_size, cookie_size, descriptor, _ = _OPEN.unpack_from(body)
    keys = body[_OPEN.size :]
    if volume_size + cookie_size > len(keys):
        raise ValueError("a cachefiles open with keys beyond its end")
    volume = keys[:volume_size].rstrip(b"\0").decode(errors="replace")  # the only one with a NUL
    cookie = keys[volume_size : volume_size + cookie_size].decode(errors="replace")
    return CacheMessage(number, kind, object_id, volume, cookie, descriptor)
