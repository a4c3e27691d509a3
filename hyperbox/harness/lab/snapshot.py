"""Snapshots of a prepared guest and copy-on-write clones of them.

A guest's memory is a file in a tmpfs. While the snapshot is made QEMU writes through to
it; a clone maps it privately, so a restore costs a device state of a few hundred
kilobytes and no copy (migration capability ``x-ignore-shared``). A prepared snapshot is
a child: memory file copied, guest restored on the copy, preparation run, state saved.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hyperbox.errors import HarnessError
from hyperbox.harness.lab.qemu import GuestHardware, Qemu
from hyperbox.harness.lab.vm import SHARED_MEMORY, VirtualMachine, owned_name
from hyperbox.processes import run

__all__ = ["Snapshot", "boot_snapshot"]

_START_MARGIN_NS = 1_000_000_000


class Snapshot:
    """A saved guest; gives clones until it is closed."""

    def __init__(
        self,
        qemu: Qemu,
        hardware: GuestHardware,
        *,
        ram_file: Path,
        state_file: Path,
        kernel_config: str,
        console: str,
    ) -> None:
        self.hardware = hardware
        self.console = console
        self._qemu = qemu
        self._ram = ram_file
        self._state = state_file
        self._start_ns = 0
        self._config = kernel_config

    def close(self) -> None:
        """Remove the snapshot's files; clones that run keep their memory mapped."""
        self._ram.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    @contextlib.contextmanager
    def clone(self) -> Iterator[VirtualMachine]:
        """Give a restored guest, stopped until its first use; it is killed at the end."""
        with self._machine(self._ram, shared=False) as machine:
            yield machine

    def plan_start(self) -> None:
        """Fix the guest time at which measured commands of clones start.

        A throwaway clone says what time it is there. The margin covers the virtual time
        that an idle guest of the exact lane runs through until its first frame arrives,
        which is longer on a busy host; the agent reports a late start.
        """
        with self.clone() as machine:
            self._start_ns = machine.ping() + _START_MARGIN_NS

    def derive(self, prepare: Callable[[VirtualMachine], None]) -> Snapshot:
        """Give a new snapshot: this one with `prepare` run in it."""
        ram = SHARED_MEMORY / owned_name("ram")
        try:
            run(["cp", "--sparse=always", self._ram, ram], timeout=120)
            with self._machine(ram, shared=True) as machine, _evidence(machine):
                prepare(machine)
                return _save(self._qemu, self.hardware, machine, ram, self._config)
        except BaseException:
            ram.unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def _machine(self, ram: Path, *, shared: bool) -> Iterator[VirtualMachine]:
        with VirtualMachine(
            self._qemu,
            self.hardware,
            ram_file=ram,
            shared=shared,
            incoming=True,
            kernel_config=self._config,
            boot_console=self.console,
        ) as machine:
            machine.restore(self._state, self._start_ns)
            yield machine


def boot_snapshot(
    qemu: Qemu,
    hardware: GuestHardware,
    *,
    kernel_config: str,
    prepare: Callable[[VirtualMachine], None],
) -> Snapshot:
    """Boot a guest, run `prepare` in it when its agent is ready, and save it.

    Raises
    ------
    BootTimeout, GuestCrash, MachineLost
        If the guest does not come up.
    HarnessError
        If /dev/shm has no room for the guest's memory.
    """
    _need_memory(hardware.memory)
    ram = SHARED_MEMORY / owned_name("ram")
    try:
        with (
            VirtualMachine(
                qemu, hardware, ram_file=ram, shared=True, kernel_config=kernel_config
            ) as machine,
            _evidence(machine),
        ):
            machine.wait_ready()
            prepare(machine)
            return _save(qemu, hardware, machine, ram, kernel_config)
    except BaseException:
        ram.unlink(missing_ok=True)
        raise


def _save(
    qemu: Qemu, hardware: GuestHardware, machine: VirtualMachine, ram: Path, config: str
) -> Snapshot:
    state = SHARED_MEMORY / owned_name("state")
    try:
        machine.save(state)
        made = Snapshot(
            qemu,
            hardware,
            ram_file=ram,
            state_file=state,
            kernel_config=config,
            console=machine.boot_console + machine.console(),
        )
        made.plan_start()
    except BaseException:
        state.unlink(missing_ok=True)
        raise
    return made


@contextlib.contextmanager
def _evidence(machine: VirtualMachine) -> Iterator[None]:
    """Let an error take the console with it: the machine is gone when it is recorded."""
    try:
        yield
    except HarnessError as error:
        error.console = machine.boot_console + machine.console()
        raise


def _need_memory(wanted: int) -> None:
    space = os.statvfs(SHARED_MEMORY)
    free = space.f_bavail * space.f_frsize
    if free < wanted:
        raise HarnessError(
            f"{SHARED_MEMORY} has {free >> 20} MiB free, a guest needs {wanted >> 20} MiB",
            hint="run with fewer --jobs, or `hyperbox doctor --repair` to clear leftovers",
        )
