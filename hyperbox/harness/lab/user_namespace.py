"""Being root where files of many owners are made and packed, without being root.

A user's commands run in a user namespace: root there is the user, the other ids are the
subordinate ones that the system has set aside for the user (subuid(5)). An image that is made
there equals root's, to the byte.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Sequence

from hyperbox.errors import HarnessError
from hyperbox.paths import cache_directory
from hyperbox.processes import require, run

__all__ = ["need_namespace", "run_as_root"]

_IDS = "100000-165535"
_OPTIONS = ("--user", "--map-root-user", "--map-auto", "--mount", "--pid", "--fork")
_ERROR, _HINT = "hyperbox: error: ", "hint: "  # as `hyperbox.printing.print_error` writes them
_LONGEST = 3600.0  # seconds


def need_namespace() -> str:
    """Try whether this user can make one, and say what was seen.

    Raises
    ------
    MissingDependency
        If a program is missing.
    HarnessError
        If the system does not let the user; the hint says what it takes.
    """
    if os.geteuid() == 0:
        return "not needed by root"
    done = run(_command(["cat", "/proc/self/uid_map"]), timeout=30, check=False)
    if done.status == 0:
        return f"user {_name()} has subordinate ids"
    lines = done.stderr.decode(errors="replace").splitlines() or ["no reason given"]
    raise HarnessError(
        f"user {_name()} cannot make a user namespace with subordinate ids: {lines[-1]}",
        hint=f"as root: usermod --add-subuids {_IDS} --add-subgids {_IDS} {_name()} (ids that no "
        "other user has); or allow user namespaces; or run as root",
    )


def run_as_root(module: str, *arguments: str) -> None:
    """Run a module of the project as root of a user namespace, to its end.

    Raises
    ------
    MissingDependency, HarnessError
        As `need_namespace` does; or the module's own error.
    """
    need_namespace()
    ours = {name: text for name, text in os.environ.items() if name.startswith("HYPERBOX_")}
    done = run(
        _command([sys.executable, "-m", module, *arguments]),
        timeout=_LONGEST,
        environment={
            **ours,
            "HYPERBOX_CACHE": os.fspath(cache_directory()),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        check=False,
    )
    if done.status == 0:
        return
    lines = done.stderr.decode(errors="replace").splitlines()
    found = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    hints = [line.removeprefix(_HINT) for line in lines if line.startswith(_HINT)]
    message = (found or lines or [f"{module} ended with {done.status}"])[-1]
    raise HarnessError(message, hint=hints[-1] if hints else "")


def _command(argv: Sequence[str]) -> list[str]:
    require("newuidmap", "uidmap")
    unshare = require("unshare", "util-linux")
    return [unshare, *_OPTIONS, "--kill-child", "--mount-proc", "--", *argv]


def _name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
