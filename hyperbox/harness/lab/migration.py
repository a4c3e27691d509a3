"""Saving a stopped guest's devices and loading them again, without its memory.

Follows QEMU's docs/xen-save-devices-state.txt: the memory lies in a shared file and is not part of
the stream, nor is a description of the machine, which the loading side must not expect
(``send-configuration``). The main thread saves: the one that migrates must not read the clocks of
a guest whose threads are kept apart (see `qemu`).
"""

from __future__ import annotations

import time
from io import FileIO
from typing import Any, Protocol

from hyperbox.errors import MachineLost
from hyperbox.harness.lab.nameless import inherited_path
from hyperbox.harness.lab.qemu import Qemu

__all__ = ["CommandRunner", "load_devices", "save_devices"]

_PATIENCE_S = 60.0


class CommandRunner(Protocol):
    """Runs a QMP command and returns its result."""

    def __call__(self, command: str, **arguments: object) -> Any:
        """Run it."""
        ...


def save_devices(monitor: CommandRunner, state: FileIO) -> None:
    """Write a stopped guest's device state into a file that QEMU has inherited.

    Raises
    ------
    MachineLost
        If QEMU is gone or cannot write it.
    """
    monitor("xen-save-devices-state", filename=str(inherited_path(state)))


def load_devices(monitor: CommandRunner, qemu: Qemu, state: FileIO) -> None:
    """Load a device state, from a descriptor that QEMU has inherited; the machine stays stopped.

    Raises
    ------
    MachineLost
        If QEMU does not manage within a minute.
    """
    monitor("migrate-incoming", uri=qemu.migrate_in(state.fileno()))
    deadline = time.monotonic() + _PATIENCE_S
    while monitor("query-status")["status"] == "inmigrate":
        if time.monotonic() > deadline:
            raise MachineLost("the snapshot could not be restored within a minute")
        time.sleep(0.002)
