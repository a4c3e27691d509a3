"""Namespaces of the calling process: unshare(2), for set-ups that vanish with it.

What is mounted or configured in a namespace of its own needs no undoing: the kernel drops it
with the last process inside, however that ends.
"""

from __future__ import annotations

import ctypes
import errno

from hyperbox.linux.refusal import refusal

__all__ = ["own_mounts", "own_network"]

_NEWNS = 0x0002_0000  # CLONE_NEWNS and CLONE_NEWNET of linux/sched.h
_NEWNET = 0x4000_0000
_RECURSIVE, _PRIVATE = 0x4000, 1 << 18  # MS_REC and MS_PRIVATE of linux/mount.h
_libc = ctypes.CDLL(None, use_errno=True)


def own_mounts() -> None:
    """Move this process into a mount namespace of its own; nothing mounted in it shows outside.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no such namespaces.
    WorkloadError
        If it refuses, for lack of rights most likely.
    """
    _unshare(_NEWNS, "mount")
    if _libc.mount(None, ctypes.c_char_p(b"/"), None, _RECURSIVE | _PRIVATE, None) != 0:
        raise refusal("cannot make mounts private", ctypes.get_errno())


def own_network() -> None:
    """Move this process into a network of its own, with nothing but a loopback that is down.

    Sockets made before keep the network that they were made in. Raises as `own_mounts`.
    """
    _unshare(_NEWNET, "network")


def _unshare(flag: int, name: str) -> None:
    if _libc.unshare(ctypes.c_int(flag)) != 0:
        what = f"cannot make a {name} namespace"  # EINVAL: a kernel without that kind
        raise refusal(what, ctypes.get_errno(), missing=(errno.EINVAL,))
