"""Snapshots of a prepared guest and copy-on-write clones of them.

A guest's memory is a file. While the snapshot is made QEMU writes through to it (a file in
memory, see `nameless`); a clone maps it privately, so a restore costs a device state of a
few hundred kilobytes and no copy (see `migration`). A prepared snapshot is a child: memory
file copied, guest restored on the copy, preparation run, state saved.

In the exact lane a snapshot made anew has the same bytes: nothing reaches the guest from
outside until it is saved (see `mailbox`), except that its clock may leap when it stops.
That is detected, and the snapshot is made again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from typing import Any

from hyperbox.errors import HarnessError, WorkloadError
from hyperbox.harness.lab.capacity import MemoryReservation
from hyperbox.harness.lab.nameless import in_memory, inherited_path
from hyperbox.harness.lab.qemu import GuestHardware, Qemu
from hyperbox.harness.lab.vm import VirtualMachine
from hyperbox.harness.model import Lane, Perturbation
from hyperbox.processes import run

__all__ = ["PreparationStep", "Repeatability", "Snapshot", "boot_snapshot", "copy"]

TRIES = 4
"""How often a snapshot is made until its clock did not leap."""

_MEMORY = MemoryReservation()
_PROBE = ("python3", "-m", "hyperbox.harness.lab.repeatability_probe")
_PROBE_START = Perturbation(seed=1, delay_ns=1_234_567)


@dataclass(frozen=True)
class Repeatability:
    """Whether clones measure the same numbers.

    `exact`: two clones agreed in every number of the probe, which are in `probe`.
    `canonical`: no clock leapt, so that the snapshot made anew gives these numbers too.
    `reason` says what is wrong, if anything is.
    """

    exact: bool
    canonical: bool
    probe: Mapping[str, Any]
    reason: str = ""


@dataclass(frozen=True)
class PreparationStep:
    """A preparation by one command, after which the guest stops by itself.

    A snapshot made by steps alone can be made again, byte for byte, in the exact lane.
    """

    argv: tuple[str, ...]
    timeout: float = 300.0

    def __call__(self, machine: VirtualMachine) -> None:
        """Run it; HarnessError if the command fails."""
        done = machine.prepare(self.argv, timeout=self.timeout)
        if done.status != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            last = said[-1] if said else "no error output"
            name = " ".join(self.argv[:3])
            raise HarnessError(f"preparation {name} failed ({done.status}): {last}")


class Snapshot:
    """A saved guest; gives clones until it is closed."""

    def __init__(
        self,
        qemu: Qemu,
        hardware: GuestHardware,
        *,
        ram: FileIO,
        state: FileIO,
        kernel_config: str,
        console: str,
        leapt: bool = False,
    ) -> None:
        self.hardware = hardware
        self.console = console
        self._leapt = leapt  # at a stop before the last one
        self.repeatability: Repeatability | None = None
        """Known after `examine`."""
        self.ram = ram
        self.state = state
        self._qemu = qemu
        self.kernel_config = kernel_config

    def close(self) -> None:
        """Close the snapshot's files; clones that run keep their memory mapped."""
        self.ram.close()
        self.state.close()

    @contextlib.contextmanager
    def clone(self) -> Iterator[VirtualMachine]:
        """Return a restored guest, stopped until its first use; it is killed at the end."""
        with self._machine(self.ram, self.hardware, shared=False) as machine:
            yield machine

    def derive(
        self, prepare: Callable[[VirtualMachine], None], hardware: GuestHardware | None = None
    ) -> Snapshot:
        """Return a new snapshot: this one after a preparation, usually a `PreparationStep`.

        The new one has other `hardware` if that is stated. It may differ in images of the
        same size that the guest has not mounted: no image is part of a snapshot.
        """
        # What has leapt once cannot be made good by another try from here.
        tries = 1 if self._leapt_by_now() else TRIES
        return _repeatedly(lambda: self._derive(prepare, hardware or self.hardware), tries)

    def examine(self) -> Repeatability:
        """Run the probe in two clones and compare every number.

        Only the exact lane promises anything; elsewhere nothing is run.
        """
        if self.hardware.lane is not Lane.EXACT:
            reason = f"the {self.hardware.lane} lane measures the host's time"
            self.repeatability = Repeatability(False, False, {}, reason)
            return self.repeatability
        (first, leapt), (second, _) = self.probe(), self.probe()
        leapt = leapt or self._leapt
        differing = sorted(n for n in {*first, *second} if first.get(n) != second.get(n))
        reason = f"two clones differ in {', '.join(differing)}" if differing else ""
        if leapt and not reason:
            reason = "the clock leapt while the guest stopped"
        self.repeatability = Repeatability(not differing, not leapt, first, reason)
        return self.repeatability

    def probe(self) -> tuple[Mapping[str, Any], bool]:
        """Return the probe's numbers from a fresh clone, and whether its clock had leapt.

        Raises
        ------
        HarnessError
            If the probe fails in the guest.
        """
        with self.clone() as machine:
            try:
                result = machine.execute(_PROBE, timeout=120, start=_PROBE_START)
                found: dict[str, Any] = json.loads(result.stdout)
            except (WorkloadError, ValueError) as error:
                raise HarnessError(f"the repeatability probe failed: {error}") from error
            return found | {"elapsed_ns": result.elapsed_ns}, machine.leapt

    def _leapt_by_now(self) -> bool:
        found = self.repeatability
        return self._leapt or (found is not None and found.exact and not found.canonical)

    def _derive(
        self, prepare: Callable[[VirtualMachine], None], hardware: GuestHardware
    ) -> Snapshot:
        with _growing(hardware.memory) as ram:
            copy(self.ram, ram)
            with self._machine(ram, hardware, shared=True) as machine, _evidence(machine):
                prepare(machine)
                machine.leapt = machine.leapt or self._leapt_by_now()
                return _save(self._qemu, hardware, machine, ram, self.kernel_config)

    def _machine(self, ram: FileIO, hardware: GuestHardware, *, shared: bool) -> VirtualMachine:
        return VirtualMachine(
            self._qemu,
            hardware,
            ram=ram,
            shared=shared,
            state=self.state,
            kernel_config=self.kernel_config,
            boot_console=self.console,
        )


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
        If the machine has too little memory for the guest, or a preparation fails.
    """
    return _repeatedly(lambda: _boot(qemu, hardware, kernel_config, prepare), TRIES)


def _boot(
    qemu: Qemu,
    hardware: GuestHardware,
    kernel_config: str,
    prepare: Callable[[VirtualMachine], None],
) -> Snapshot:
    with (
        _growing(hardware.memory) as ram,
        VirtualMachine(
            qemu, hardware, ram=ram, shared=True, kernel_config=kernel_config
        ) as machine,
        _evidence(machine),
    ):
        machine.wait_ready()
        prepare(machine)
        return _save(qemu, hardware, machine, ram, kernel_config)


@contextlib.contextmanager
def _growing(size: int) -> Iterator[FileIO]:
    """Return a file in memory with `size` bytes reserved; it is closed on an error only."""
    ram = in_memory("ram")
    try:
        with _MEMORY.growing(ram, size):
            yield ram
    except BaseException:
        ram.close()
        raise


def _repeatedly(make: Callable[[], Snapshot], tries: int) -> Snapshot:
    """Make a snapshot and examine it, again if its clock leapt."""
    for left in reversed(range(tries)):
        snapshot = make()
        try:
            found = snapshot.examine()
        except BaseException:
            snapshot.close()
            raise
        if found.canonical or not found.exact or not left:
            return snapshot
        snapshot.close()
    raise AssertionError("the last try returns")


def _save(
    qemu: Qemu, hardware: GuestHardware, machine: VirtualMachine, ram: FileIO, config: str
) -> Snapshot:
    return Snapshot(
        qemu,
        hardware,
        ram=ram,
        state=machine.save(),
        kernel_config=config,
        console=machine.boot_console + machine.console(),
        leapt=machine.leapt,
    )


def copy(source: FileIO, target: FileIO) -> None:
    """Copy a memory file into an empty file, holes and zeros as holes.

    Raises
    ------
    HarnessError
        If there is no room for it.
    """
    run(
        ["cp", "--sparse=always", inherited_path(source), inherited_path(target)],
        timeout=300,
        pass_fds=(source.fileno(), target.fileno()),
    )


@contextlib.contextmanager
def _evidence(machine: VirtualMachine) -> Iterator[None]:
    """Let an error take the console with it: the machine is gone when it is recorded."""
    try:
        yield
    except HarnessError as error:
        error.console = machine.boot_console + machine.console()
        raise
