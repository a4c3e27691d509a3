"""A CPU of the host for each guest, so that its threads run one after another.

QEMU's two threads take turns where time is counted in instructions. On one CPU they cost
half as much as on two (idle guests of 7.3: 8 and 17 CPU seconds), and hardly race.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator

__all__ = ["leased_cpu"]

_NAME = "hyperbox-cpu"
_next = itertools.count(os.getpid())  # processes begin at different CPUs


@contextlib.contextmanager
def leased_cpu() -> Iterator[int]:
    """Return the number of a CPU that no other guest of this machine holds while the block runs.

    Guests of all programs count. If none is left it is one that others hold, too.
    """
    allowed = sorted(os.sched_getaffinity(0))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        free = (cpu for cpu in allowed if _claimed(claim, cpu))
        yield next(free, allowed[next(_next) % len(allowed)])


def _claimed(claim: socket.socket, cpu: int) -> bool:
    """Bind a name that its holder takes along, whatever ends it: abstract, unix(7)."""
    try:
        claim.bind(f"\0{_NAME}-{cpu}")
    except OSError:
        return False
    return True
