"""seccomp(2): a call of this process that the kernel logs, and calls that another process decides.

Follows Documentation/userspace-api/seccomp_filter.rst and <linux/seccomp.h>. User notification is
there from Linux 5.0 on; that a call may continue (SECCOMP_USER_NOTIF_FLAG_CONTINUE) from 5.5.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct
import threading
from dataclasses import dataclass

from hyperbox.errors import KernelFeatureMissing
from hyperbox.linux.refusal import refusal

__all__ = ["Notification", "answer_continue", "log_own_call", "next_notification"]

_SECCOMP = 317  # __NR_seccomp
_SET_MODE_FILTER = 1
_RET_LOG, _RET_ALLOW = 0x7FFC0000, 0x7FFF0000
_INSTRUCTION = struct.Struct("<HBBI")  # struct sock_filter
_NOTIFICATION = struct.Struct("<QIIiIQ6Q")  # struct seccomp_notif with its struct seccomp_data
_ANSWER = struct.Struct("<QqiI")  # struct seccomp_notif_resp
_RECEIVE = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
_SEND = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


@dataclass(frozen=True)
class Notification:
    """A call that waits for its answer: `pid` is as this process sees it, 0 if it cannot."""

    cookie: int
    pid: int
    number: int
    architecture: int


def next_notification(descriptor: int) -> Notification | None:
    """Return the next call of a notification descriptor; None if its task is gone meanwhile.

    Blocks until there is one; poll(2) says whether there is.

    Raises
    ------
    WorkloadError
        If the descriptor is of another kind.
    """
    data = bytearray(_NOTIFICATION.size)  # the kernel refuses one that is not all zeros
    try:
        fcntl.ioctl(descriptor, _RECEIVE, data)
    except OSError as error:
        if error.errno == errno.ENOENT:  # killed between its call and here
            return None
        raise refusal("cannot receive a seccomp notification", error) from error
    cookie, pid, _flags, number, architecture, *_ = _NOTIFICATION.unpack(data)
    return Notification(cookie, pid, number, architecture)


def answer_continue(descriptor: int, notification: Notification) -> None:
    """Let a call run as if there had been no filter.

    Raises
    ------
    KernelFeatureMissing
        If this kernel cannot (before Linux 5.5).
    """
    answer = _ANSWER.pack(notification.cookie, 0, 0, _CONTINUE)
    try:
        fcntl.ioctl(descriptor, _SEND, answer)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise KernelFeatureMissing(
                "this kernel does not let a call continue after a seccomp notification"
            ) from error
        if error.errno != errno.ENOENT:  # its task is gone
            raise refusal("cannot answer a seccomp notification", error) from error


def log_own_call(number: int) -> None:
    """Make a system call under a filter that logs it, in a thread that ends with it.

    The call itself should not exist, so that it does nothing. A filter stays with its thread for
    good, hence the thread.

    Raises
    ------
    KernelFeatureMissing
        If the kernel refuses the filter.
    """
    failed: list[int] = []
    thread = threading.Thread(target=lambda: failed.append(_log_call(number)))
    thread.start()
    thread.join()
    if failed[0]:
        raise refusal("seccomp filter that logs", failed[0], missing=failed)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _log_call(number: int) -> int:
    """Return 0, or the errno with which the filter was refused."""
    code = b"".join(
        _INSTRUCTION.pack(*one)
        for one in (
            (0x20, 0, 0, 0),  # load the call's number
            (0x15, 0, 1, number),  # is it the one?
            (0x06, 0, 0, _RET_LOG),
            (0x06, 0, 0, _RET_ALLOW),
        )
    )
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(_SECCOMP, _SET_MODE_FILTER, 0, ctypes.byref(program)):
        return ctypes.get_errno()
    library.syscall(number)
    return 0
