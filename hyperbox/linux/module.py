"""Loading kernel modules."""

from __future__ import annotations

from hyperbox.errors import HarnessError, KernelFeatureMissing
from hyperbox.processes import run

__all__ = ["load"]


def load(name: str, *parameters: str) -> None:
    """Load a module (nothing happens if it is loaded or built in).

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no such module or refuses it.
    """
    try:
        run(["modprobe", name, *parameters], timeout=60)
    except HarnessError as error:
        raise KernelFeatureMissing(f"this kernel has no module {name}: {error.message}") from error
