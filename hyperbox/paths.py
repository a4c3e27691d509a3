"""Where the project's data and the user's caches lie.

The cache follows the XDG base directory specification. ``HYPERBOX_CACHE`` moves it.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from hyperbox.errors import ConfigError

__all__ = ["cache_directory", "project_directory", "user_directory"]


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
    """Return the cache root: ``$HYPERBOX_CACHE``, else ``$XDG_CACHE_HOME/hyperbox``.

    Raises
    ------
    ConfigError
        If neither is set and the user has no home, or the path has what apt's configuration
        cannot express: its strings have no escapes (apt.conf(5)), and mmdebstrap writes some.
    """
    chosen = os.environ.get("HYPERBOX_CACHE")
    found = (
        Path(chosen).resolve()
        if chosen
        else user_directory("XDG_CACHE_HOME", ".cache") / "hyperbox"
    )
    text = str(found)
    if '"' in text or not text.isprintable():
        raise ConfigError(
            f"the cache directory {text!r} has a double quote or an unprintable character in its "
            "path, which apt cannot handle",
            hint="set HYPERBOX_CACHE to another directory",
        )
    return found


def user_directory(variable: str, below_home: str) -> Path:
    """Return a base directory of the user: `variable` of the environment, else one of home's.

    Relative paths in the variables are ignored, as the XDG base directory specification says.

    Raises
    ------
    ConfigError
        If the user has no home: a uid that is in no passwd file, without ``HOME``.
    """
    named = Path(os.environ.get(variable, ""))
    if named.is_absolute():
        return named
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        raise ConfigError(
            f"user {os.geteuid()} has no home directory", hint=f"set HOME or {variable}"
        )
    return home / below_home
