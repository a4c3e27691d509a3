"""What a program leaves running: it comes to a subreaper, which ends and reaps it.

A process group or session can be left with setsid(2), a cgroup by who may write to another one.
Orphans go to the nearest subreaper or to the first process of their pid namespace, whatever
they do: PR_SET_CHILD_SUBREAPER(2const), since 3.4 (kernel commit ebec18a6d3aa).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.linux.refusal import refusal

__all__ = ["become_subreaper", "end_children"]

# linux/prctl.h: PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36
_PAUSE_S = 0.001


def become_subreaper(death_signal: signal.Signals | None = None) -> None:
    """Let orphans among the descendants of this process become its children.

    Parameters
    ----------
    death_signal
        What this process gets when its parent ends, so that it can end them.

    Raises
    ------
    WorkloadError
        If the kernel refuses.
    """
    import ctypes  # noqa: PLC0415 - the first process of a guest has no need of it

    libc = ctypes.CDLL(None, use_errno=True)
    options = {_SET_CHILD_SUBREAPER: 1}
    if death_signal is not None:
        options[_SET_PDEATHSIG] = death_signal
    for option, value in options.items():
        if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
            raise refusal("cannot adopt the orphans of a program", ctypes.get_errno())


def end_children(spare: Collection[int] = (), *, patience_s: float = 20.0) -> tuple[int, ...]:
    """Kill and reap every child of this process, and what becomes a child by that.

    Parameters
    ----------
    spare
        Children that are left alone, with what they have started.
    patience_s
        Seconds until a child that does not end is an error.

    Returns
    -------
    tuple
        Process numbers of what was ended.

    Raises
    ------
    WorkloadError
        If one does not end, because the kernel does not let it go; the text names it.
    """
    ended: list[int] = []
    deadline = time.monotonic() + patience_s
    while _has_children():
        left = [pid for pid in _children() if pid not in spare]
        if not left:
            break
        if time.monotonic() > deadline:
            raise WorkloadError(f"process {_named(left[0])} was killed and does not end")
        for pid in left:  # not reaped yet, so the number is still theirs
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended += [pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]]
        time.sleep(_PAUSE_S)
    return tuple(ended)


def _has_children() -> bool:
    """Whether there are any, dead ones included: cheap, where `_children` reads all of /proc."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _children() -> Iterator[int]:
    own = os.getpid()
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            with contextlib.suppress(OSError):  # it may have ended
                # proc_pid_stat(5); the name in parentheses may hold anything
                _, parent = (place / "stat").read_bytes().rpartition(b")")[2].split()[:2]
                if int(parent) == own:
                    yield int(place.name)


def _named(pid: int) -> str:
    with contextlib.suppress(OSError):
        return f"{pid} ({Path(f'/proc/{pid}/comm').read_text(errors='replace').strip()})"
    return str(pid)
