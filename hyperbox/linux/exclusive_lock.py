"""A lock that at most one process of the machine holds: flock(2), dropped by any death."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import HarnessError
from hyperbox.linux.refusal import refusal

__all__ = ["exclusive_lock"]


@contextlib.contextmanager
def exclusive_lock(path: Path, what: str, *, lowest: int = 3) -> Iterator[None]:
    """Hold the lock at `path` for the block; do not wait for it.

    Parameters
    ----------
    lowest
        The descriptor that holds it has this number or a higher one: closing it drops the lock.

    Raises
    ------
    HarnessError
        If another process holds it, with that process's number.
    WorkloadError
        If it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise refusal(f"cannot make {path}", error) from error
    if handle < lowest:
        low, handle = handle, fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, lowest)
        os.close(low)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise HarnessError(
                f"{what} runs already, as process {holder}", hint="let the other one end first"
            ) from None
        except OSError as error:  # a file system without locks
            raise refusal(f"cannot lock {path}", error) from error
        with contextlib.suppress(OSError):  # the lock holds without the number, too
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
