"""Kernel modules, through modprobe(8) of kmod.

Nothing here removes a module. An unused one is inert, and removing is not safe: with
null_blk goes configfs, and on 5.10 its inodes are still being freed by RCU then, which is
a panic ("unable to handle page fault" below rcu_core, seen on Debian 5.10.262).
"""

from __future__ import annotations

from pathlib import Path

from hyperbox.errors import HarnessError, KernelFeatureMissing
from hyperbox.processes import require, run

__all__ = ["load_module", "why_not_loadable"]


def load_module(name: str, *parameters: str) -> None:
    """Load a module unless it is there or built in; it stays loaded.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no such module or refuses it.
    """
    if _is_live(name):
        return
    try:
        run([require("modprobe", "kmod"), name, *parameters], timeout=60)
    except HarnessError as error:
        raise KernelFeatureMissing(f"no module {name}: {error.message}") from error


def why_not_loadable(name: str) -> str:
    """Say why `load_module` would fail, as far as that is known without loading; else empty.

    That a module is there and of this kernel is looked at, not whether it would start.
    """
    if _is_live(name):
        return ""
    try:
        done = run([require("modprobe", "kmod"), "--dry-run", name], timeout=10, check=False)
    except HarnessError as error:
        return f"no module {name}: {error.message}"
    if done.status == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["modprobe refuses it"]
    return f"no module {name}: {said[0]}"


def _is_live(name: str) -> bool:
    """Whether it is built in, or loaded and through with its start."""
    state = Path("/sys/module", name, "initstate")
    try:
        return state.read_text().strip() == "live"
    except FileNotFoundError:
        return state.parent.exists() or _is_file_system(name)  # built in


def _is_file_system(name: str) -> bool:
    """Whether the kernel has a file system; one that is built in may be nowhere else to be seen."""
    lines = Path("/proc/filesystems").read_text().splitlines()
    return name in (line.split()[-1] for line in lines)
