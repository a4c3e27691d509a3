"""Files of hyperbox processes that were killed: found by the pid in their names.

The contract is ``hyperbox-<pid>-*`` in /dev/shm and the temporary directory, and
``.attempt-<pid>-*`` in run directories.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hyperbox.harness.lab.vm import SHARED_MEMORY

__all__ = ["clear_leftovers", "leftovers"]

_OWNED = re.compile(r"(?:hyperbox|\.attempt)-(\d+)-.+")


def leftovers(run_directories: Sequence[Path] = ()) -> Iterator[Path]:
    """Return the files and directories whose owner is gone."""
    places = [SHARED_MEMORY, Path(tempfile.gettempdir())]
    for directory in run_directories:
        places += (directory / "cells").glob("*")
    for place in dict.fromkeys(places):
        with contextlib.suppress(OSError):
            for path in sorted(place.iterdir()):
                owner = _OWNED.fullmatch(path.name)
                if owner is not None and not _alive(int(owner.group(1))):
                    yield path


def clear_leftovers(run_directories: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Remove what dead processes left; give what was removed. Other users' files stay."""
    removed = []
    for path in leftovers(run_directories):
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(path)
    return tuple(removed)


def _alive(pid: int) -> bool:
    """Whether a process has this number; one that may not be signalled is alive too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
