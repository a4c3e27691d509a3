"""The kernel's random generator, which draws address layouts. Follows random(4)."""

from __future__ import annotations

import contextlib
import fcntl
import os

__all__ = ["reseed_crng"]

_RESEED = 0x5207  # RNDRESEEDCRNG of <linux/random.h> (d848e5f8e1eb): use what was mixed in at once


def reseed_crng(data: bytes) -> None:
    """Mix `data` into the pool and have the generator use it; without rights it may do so later.

    Where the pool has no other source, as in a guest in virtual time, equal data give equal
    numbers after it.
    """
    handle = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(handle, data)
        with contextlib.suppress(PermissionError):
            fcntl.ioctl(handle, _RESEED)
    finally:
        os.close(handle)
