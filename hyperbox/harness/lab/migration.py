"""Saving a stopped guest's devices and loading them again, without its memory.

Follows QEMU's docs/devel/migration and docs/xen-save-devices-state.txt: the memory lies in a
shared file, which the capability ``x-ignore-shared`` leaves out of the stream of a migration;
what saves devices alone has no memory in it, nor a description of the machine, which the
loading side must then not expect (``send-configuration``).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Protocol

from hyperbox.errors import HarnessError, MachineLost
from hyperbox.harness.lab.qemu import Qemu
from hyperbox.harness.model import Lane

__all__ = ["Monitor", "load_devices", "save_devices"]

_PATIENCE_S = 60.0


class Monitor(Protocol):
    """Runs a QMP command and gives what it returns."""

    def __call__(self, command: str, **arguments: object) -> Any:
        """Run it."""
        ...


def save_devices(monitor: Monitor, qemu: Qemu, lane: Lane, state_file: Path) -> None:
    """Write a stopped guest's device state.

    Raises
    ------
    HarnessError
        If QEMU does not manage within a minute.
    """
    if lane is Lane.EXACT:
        # By the main thread: the one that migrates must not read the clocks of a guest whose
        # threads are kept apart (see `qemu`).
        monitor("xen-save-devices-state", filename=os.fspath(state_file))
        return
    _settings(monitor)
    monitor("migrate", uri=qemu.migrate_out(state_file))
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        status = monitor("query-migrate").get("status")
        if status == "completed":
            return
        if status in ("failed", "cancelled") or time.monotonic() > deadline:
            raise HarnessError(f"the snapshot could not be saved: migration {status}")
        time.sleep(0.005)


def load_devices(monitor: Monitor, qemu: Qemu, state_file: Path) -> None:
    """Load a device state into a machine that waits for it; it stays stopped.

    Raises
    ------
    MachineLost
        If QEMU does not manage within a minute.
    """
    _settings(monitor)
    monitor("migrate-incoming", uri=qemu.migrate_in(state_file))
    deadline = time.monotonic() + _PATIENCE_S
    while monitor("query-status")["status"] == "inmigrate":
        if time.monotonic() > deadline:
            raise MachineLost("the snapshot could not be restored within a minute")
        time.sleep(0.002)


def _settings(monitor: Monitor) -> None:
    capability = {"capability": "x-ignore-shared", "state": True}
    monitor("migrate-set-capabilities", capabilities=[capability])
    monitor("migrate-set-parameters", **{"max-bandwidth": 10**11})
