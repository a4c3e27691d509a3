"""What the engine needs of a machine, VM or host: small protocols, no implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from hyperbox.harness.model import Experiment, Lane, Perturbation

__all__ = ["Artifacts", "CommandResult", "Laboratory", "Machine", "MachineSource"]


@dataclass(frozen=True)
class CommandResult:
    """What a command on the machine left; a negative status is the signal that ended it.

    `elapsed_ns` is its duration by the machine's own clock; `cpu_seconds` what it cost the
    host, a guest's emulation included; `run_delay_seconds` how long that waited for a
    processor of the host. 0: not known.
    """

    status: int
    stdout: bytes
    stderr: bytes
    elapsed_ns: int = 0
    cpu_seconds: float = 0.0
    run_delay_seconds: float = 0.0


@dataclass(frozen=True)
class Artifacts:
    """Evidence of a machine: console output, kernel messages, kernel configuration.

    `taint` is the number in ``/proc/sys/kernel/tainted`` and `modules` are the loaded ones;
    None and empty if the machine could not be asked.
    """

    serial: str
    dmesg: str
    kernel_config: str
    taint: int | None = None
    modules: tuple[str, ...] = ()


class Machine(Protocol):
    """A machine that runs commands, whatever it is made of."""

    def execute(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        start: Perturbation | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command in the project directory and wait for its end.

        Raises
        ------
        GuestCrash, MachineLost
            If the machine went away; never a `CommandResult`.
        WorkloadError
            If the command outlived `timeout` (seconds) on a machine that still answers.
        """
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write a file on the machine."""
        ...

    def get(self, path: str) -> bytes:
        """Read a file of the machine; FileNotFoundError if it is absent."""
        ...

    def artifacts(self) -> Artifacts:
        """Collect the evidence; works on a dead machine too, with what is left."""
        ...


class MachineSource(Protocol):
    """A kernel with an experiment's preparation done: fresh equal machines come from it."""

    def fresh(self) -> AbstractContextManager[Machine]:
        """Return a machine in the prepared state; it is destroyed (VM) or tidied (host) after."""
        ...

    def environment(self) -> Mapping[str, object]:
        """Return the fingerprint for the record: kernel, QEMU, accelerator, command line ..."""
        ...

    def close(self) -> None:
        """Free everything, snapshot files included."""
        ...


class Laboratory(Protocol):
    """Where machine sources come from: QEMU VMs of a kernel matrix, or the host."""

    def source(self, kernel: str, experiment: Experiment, lane: Lane) -> MachineSource:
        """Boot (or reuse) `kernel`, run the experiment's preparation, return the source.

        Raises
        ------
        HarnessError
            If the kernel does not boot or the preparation fails.
        """
        ...

    def fingerprint(self, kernel: str, experiment: Experiment, lane: Lane) -> Mapping[str, object]:
        """Return what a source's `environment` will say, as far as no boot is needed for it."""
        ...

    def labels(self) -> Sequence[str]:
        """Labels of the kernels this laboratory has, oldest first."""
        ...

    def close(self) -> None:
        """Stop every machine and remove every temporary file."""
        ...
