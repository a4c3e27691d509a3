"""Kernel modules, through modprobe(8) of kmod.

Nothing here removes a module. An unused one is inert, and removing is not safe: with
null_blk goes configfs, and on 5.10 its inodes are still being freed by RCU then, which is
a panic ("unable to handle page fault" below rcu_core, seen on Debian 5.10.262).
"""

from __future__ import annotations

from pathlib import Path

from hyperbox.errors import HarnessError, KernelFeatureMissing
from hyperbox.processes import require, run

__all__ = ["load_module"]


def load_module(name: str, *parameters: str) -> None:
    """Load a module unless it is there or built in; it stays loaded.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no such module or refuses it.
    """
    if Path("/sys/module", name).exists():
        return
    try:
        run([require("modprobe", "kmod"), name, *parameters], timeout=60)
    except HarnessError as error:
        raise KernelFeatureMissing(f"no module {name}: {error.message}") from error
