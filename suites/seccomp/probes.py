"""System calls that escapes from containers start with; prints what became of each, as JSON.

It runs inside a container as a program of its own and imports nothing of the project. Each call is
made by a child. The answer is ``success``, the name of an errno, or the name of the signal that
ended the child. Arguments are such that a kernel which lets a call through refuses it, or that its
effect ends with the child.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from functools import partial

_NEWUSER, _NEWNS, _NEWNET, _NEWCGROUP, _SIGCHLD = 0x10000000, 0x20000, 0x40000000, 0x2000000, 17
_X32 = 0x40000000
_AF_ALG, _AF_VSOCK, _SEQPACKET = 38, 40, 5
_NATIVE: dict[str, tuple[int, ...]] = {
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, 0, 0),
    "pivot_root": (155, 0, 0),
    "open_tree": (428, -1, 0, 0),
    "move_mount": (429, -1, 0, -1, 0, 0),
    "fsopen": (430, 0, 0),
    "mount_setattr": (442, -1, 0, 0, 0, 0),
    "unshare user": (272, _NEWUSER),
    "unshare mount": (272, _NEWNS),
    "unshare net": (272, _NEWNET),
    "unshare cgroup": (272, _NEWCGROUP),
    "setns": (308, -1, 0),
    "clone user": (56, _NEWUSER | _SIGCHLD, 0, 0, 0, 0),
    "clone mount": (56, _NEWNS | _SIGCHLD, 0, 0, 0, 0),
    "clone net": (56, _NEWNET | _SIGCHLD, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "keyctl": (250, 0, -3, 0),
    "add_key": (248, 0, 0, 0, 0, 0),
    "request_key": (249, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "ptrace": (101, 16, -1, 0, 0),
    "process_vm_readv": (310, -1, 0, 0, 0, 0, 0),
    "pidfd_getfd": (438, -1, 0, 0),
    "kcmp": (312, -1, -1, 99, 0, 0),
    "userfaultfd": (323, 0xFFFF),
    "io_uring_setup": (425, 0, 0),
    "io_uring_register": (427, -1, 0, 0, 0),
    "socket AF_ALG": (41, _AF_ALG, _SEQPACKET, 0),
    "socket AF_VSOCK": (41, _AF_VSOCK, 1, 0),
    "open_by_handle_at": (304, -1, 0, 0),
    "name_to_handle_at": (303, -1, 0, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "finit_module": (313, -1, 0, 0),
    "delete_module": (176, 0, 0),
    "kexec_load": (246, 0, 0, 0, -1),
    "reboot": (169, 0, 0, 0, 0),
    "swapon": (167, 0, 0),
    "acct": (163, 1),
    "settimeofday": (164, 1, 0),
    "clock_settime": (227, 99, 0),
    "personality": (135, 0x40000),
    "iopl": (172, 99),
    "ioperm": (173, -1, 1, 1),
    "quotactl": (179, 0, 0, 0, 0),
    "syslog": (103, 99, 0, 0),
    "vhangup": (153,),
    "fanotify_init": (300, -1, 0),
    "memfd_secret": (447, -1),
    "mknod": (133, 0, 0, 0),
    "chroot": (161, 0),
    "x32 getpid": (_X32 | 39,),
    "x32 mount": (_X32 | 165, 0, 0, 0, 0, 0),
    "x32 ptrace": (_X32 | 521, 16, -1, 0, 0),
    "no such call": (999,),
}
"""Numbers are those of arch/x86/entry/syscalls/syscall_64.tbl."""
_I386: dict[str, tuple[int | str, ...]] = {
    "i386 getpid": (20, 0, 0, 0),
    "i386 mount": (21, 0, 0, 0),
    "i386 unshare user": (310, _NEWUSER, 0, 0),
    "i386 setns": (346, -1, 0, 0),
    "i386 ptrace": (26, 16, -1, 0),
    "i386 keyctl": (288, 0, -3, 0),
    "i386 bpf": (357, 0, 0, 0),
    "i386 userfaultfd": (374, 0xFFFF, 0, 0),
    "i386 io_uring_setup": (425, 0, 0, 0),
    "i386 socket AF_ALG": (359, _AF_ALG, _SEQPACKET, 0),
    "i386 socketcall AF_ALG": (102, 1, "socket", 0),
    "i386 kexec_load": (283, 0, 0, 0),
    "i386 init_module": (128, 0, 0, 0),
}
"""Numbers are those of syscall_32.tbl; ``socket`` stands for a block of arguments in memory."""
_LOW_MEMORY = 0x40  # MAP_32BIT
_CALL = b"\x53\xb8%s\xbb%s\xb9%s\xba%s\xcd\x80\x5b\xc3"  # push rbx; mov ...; int 0x80; pop; ret


def main() -> None:
    """Print the outcome of every probe."""
    outcomes = {name: _outcome(partial(_native, words)) for name, words in _NATIVE.items()}
    outcomes |= {name: _outcome(partial(_i386, words)) for name, words in _I386.items()}
    json.dump(outcomes, sys.stdout, sort_keys=True)
    print()


def _outcome(call: Callable[[], int]) -> str:
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os._exit(call())
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    code = os.WEXITSTATUS(status)
    return errno.errorcode.get(code, str(code)) if code else "success"


def _native(words: Sequence[int]) -> int:
    """Return the errno of a call, 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = libc.syscall(*(ctypes.c_long(word) for word in words))
    return ctypes.get_errno() if found == -1 else 0


def _i386(words: Sequence[int | str]) -> int:
    """Return the errno of a call by the 32-bit entry, 0 for none."""
    memory = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _LOW_MEMORY
    page = mmap.mmap(-1, mmap.PAGESIZE, flags, memory)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    block = address + mmap.PAGESIZE // 2
    page.seek(mmap.PAGESIZE // 2)
    page.write(struct.pack("<3I", _AF_ALG, _SEQPACKET, 0))
    numbers = [block if isinstance(word, str) else word for word in words]
    page.seek(0)
    page.write(_CALL % tuple(struct.pack("<I", number & 0xFFFFFFFF) for number in numbers))
    found: int = ctypes.CFUNCTYPE(ctypes.c_int32)(address)()
    return -found if -4096 < found < 0 else 0


if __name__ == "__main__":
    main()
