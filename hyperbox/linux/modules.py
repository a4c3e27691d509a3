"""Kernel modules, through modprobe(8) of kmod."""

from __future__ import annotations

from pathlib import Path

from hyperbox.errors import HarnessError, KernelFeatureMissing
from hyperbox.processes import require, run

__all__ = ["load_module", "unload_module"]


def load_module(name: str, *parameters: str) -> bool:
    """Load a module unless it is there or built in; tell whether this call loaded it.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no such module or refuses it.
    """
    if Path("/sys/module", name).exists():
        return False
    try:
        run([require("modprobe", "kmod"), name, *parameters], timeout=60)
    except HarnessError as error:
        raise KernelFeatureMissing(f"no module {name}: {error.message}") from error
    return True


def unload_module(name: str) -> None:
    """Remove a module and what it alone needed; one that is in use stays."""
    run([require("modprobe", "kmod"), "--remove", "--quiet", name], timeout=60, check=False)
