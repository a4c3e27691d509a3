"""Versions of hyperbox and of what its numbers stand on, for every record."""

from __future__ import annotations

import contextlib
import functools
import platform
from importlib import metadata

import hyperbox
from hyperbox.errors import ConfigError, HarnessError
from hyperbox.paths import project_directory
from hyperbox.processes import run

__all__ = ["versions"]

_COMPONENTS = ("numpy", "scipy", "pandas", "pyarrow")


@functools.cache
def _found() -> tuple[tuple[str, str], ...]:
    found = {"hyperbox": hyperbox.__version__, "python": platform.python_version()}
    for name in _COMPONENTS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    with contextlib.suppress(HarnessError, ConfigError):
        top = project_directory()
        if (top / ".git").exists():
            found["commit"] = run(
                ["git", "-C", top, "describe", "--always", "--dirty"], timeout=30
            ).text()
    return tuple(found.items())


def versions() -> dict[str, str]:
    """Return versions by name, as they were when first asked; ``commit`` in a git checkout."""
    return dict(_found())
