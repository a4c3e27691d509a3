"""Transparent huge pages of a process: prctl(2), Documentation/admin-guide/mm/transhuge.rst."""

from __future__ import annotations

import ctypes

from hyperbox.linux.refusal import refusal

__all__ = ["refuse_huge_pages"]

_PR_SET_THP_DISABLE = 41  # include/uapi/linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def refuse_huge_pages() -> None:
    """Take no transparent huge pages in this process and in those that it starts from now on.

    Raises
    ------
    WorkloadError
        If the kernel refuses.
    """
    words = [ctypes.c_ulong(word) for word in (1, 0, 0, 0)]
    if _libc.prctl(ctypes.c_int(_PR_SET_THP_DISABLE), *words) != 0:
        raise refusal("cannot do without transparent huge pages", ctypes.get_errno())
