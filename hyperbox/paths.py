"""Where the project's data and the user's caches lie.

The cache follows the XDG base directory specification. ``HYPERBOX_CACHE`` moves it.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from hyperbox.errors import ConfigError

__all__ = ["cache_directory", "project_directory"]


def project_directory() -> Path:
    """Return the directory that holds ``suites/``, ``workloads/`` and ``vm-images/``.

    That is the checkout, or ``share/hyperbox`` of an installed wheel.

    Raises
    ------
    ConfigError
        If neither has them.
    """
    checkout = Path(__file__).resolve().parent.parent
    shared = Path(sysconfig.get_path("data")) / "share" / "hyperbox"
    for candidate in (checkout, shared):
        if (candidate / "suites").is_dir() and (candidate / "workloads").is_dir():
            return candidate
    raise ConfigError(
        f"no suites/ beside {checkout} nor below {shared}", hint="install hyperbox again"
    )


def cache_directory() -> Path:
    """Return the cache root: ``$HYPERBOX_CACHE``, else ``$XDG_CACHE_HOME/hyperbox``."""
    chosen = os.environ.get("HYPERBOX_CACHE")
    if chosen:
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hyperbox"
