"""What killed hyperboxes left half-written in run directories.

A run belongs to the process that holds its lock, which any death gives back, whatever pid
namespace it lived in. Guests leave nothing: their files have no names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from hyperbox.errors import HyperboxError
from hyperbox.harness.runs.store import RunStore

__all__ = ["clear_leftovers", "leftovers"]


def leftovers(run_directories: Sequence[Path]) -> tuple[Path, ...]:
    """Return what is half-written in runs that no process holds."""
    found: list[Path] = []
    for directory in run_directories:
        with contextlib.suppress(HyperboxError), RunStore.open(directory).held():
            found += RunStore(directory).halves()
    return tuple(found)


def clear_leftovers(run_directories: Sequence[Path]) -> tuple[Path, ...]:
    """Remove it; return what was removed. Runs that this user may not write stay as they are."""
    removed: list[Path] = []
    for directory in run_directories:
        left = leftovers([directory])
        with contextlib.suppress(HyperboxError), RunStore.open(directory).exclusive():
            removed += (path for path in left if not path.exists())
    return tuple(removed)
