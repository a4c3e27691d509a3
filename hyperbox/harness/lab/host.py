"""The machine itself behind the laboratory's protocols: no VM, no snapshot.

Experiments that change the machine are refused unless allowed; the refusal is a reason on
record (SKIP), not an error. What a machine was given (files) is removed when it is left, what
a killed program changed is undone at once, and a machine that an earlier run left changed is
not measured.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from hyperbox import files
from hyperbox.errors import HarnessError, KernelFeatureMissing, WorkloadError
from hyperbox.harness.lab import supervisor
from hyperbox.harness.lab.machine import Artifacts, CommandResult
from hyperbox.harness.lab.supervisor import ProgramEnd
from hyperbox.harness.model import Experiment, Lane, Perturbation
from hyperbox.journal import UndoOutcome, state_directory
from hyperbox.linux.undo import KINDS
from hyperbox.paths import project_directory
from hyperbox.processes import ends_by, run, spawn, stop
from hyperbox.repair import damage, repair

__all__ = [
    "HOST",
    "ChangesRefused",
    "HostLaboratory",
    "HostMachine",
    "HostSource",
    "check_unchanged",
    "host_facts",
]

HOST = "host"
"""Label of the only kernel of this laboratory: the one that runs."""

_PACKAGE_PARENT = Path(__file__).resolve().parents[3]
_GRACE_S = 60.0  # for a supervisor to end what a program left


class ChangesRefused(KernelFeatureMissing):
    """The experiment changes settings and the user did not allow that on this machine."""


class HostMachine:
    """The running machine; implements `machine.Machine`."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._written: list[Path] = []
        self._seen_kernel_lines = _kernel_messages()

    def execute(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        start: Perturbation | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command in the project directory; see `machine.Machine`.

        What the command has started ends with it, and its result is what was there by then; see
        `supervisor`. Changes of the machine that it left, killed or not, are undone;
        HarnessError if one cannot be.
        """
        variables = {"PYTHONPATH": os.fspath(_PACKAGE_PARENT), "PYTHONDONTWRITEBYTECODE": "1"}
        variables |= {"PYTHONHASHSEED": "0"} | dict(environment or {})
        variables["HYPERBOX_STATE"] = os.fspath(state_directory().parent)
        if start is not None:
            variables |= start.environment()
            time.sleep(start.delay_ns / 1e9)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            end = _supervised(argv, timeout, variables, (out, err), self._project)
            _undo_changes_of(end.pids)
            if end.error:
                raise WorkloadError(end.error)
            if end.status is None:
                raise WorkloadError(f"no end after {timeout:g} s: {' '.join(argv[:3])}")
            out.seek(0)
            err.seek(0)
            return CommandResult(end.status, out.read(end.output[0]), err.read(end.output[1]))

    def put(self, path: str, data: bytes) -> None:
        """Write a new file, removed again when the machine is left; never an existing one."""
        target = Path(path)
        if (target.exists() or target.is_symlink()) and target not in self._written:
            raise HarnessError(f"{path} exists on the host: it is not overwritten")
        files.write_bytes(target, data)
        self._written.append(target)

    def get(self, path: str) -> bytes:
        """Read a file; FileNotFoundError if it is absent."""
        return Path(path).read_bytes()

    def artifacts(self) -> Artifacts:
        """Return the kernel's messages since the machine was taken, and its configuration."""
        now = _kernel_messages()
        seen = self._seen_kernel_lines
        new = now
        if seen and seen[-1] in now:
            new = now[now.index(seen[-1]) + 1 :]
        return Artifacts(
            serial="", dmesg="".join(f"{line}\n" for line in new), kernel_config=_config()
        )

    def tidy(self) -> None:
        """Remove what `put` wrote."""
        while self._written:
            self._written.pop().unlink(missing_ok=True)


class HostSource:
    """The host with an experiment's preparation done; implements `machine.MachineSource`."""

    def __init__(self, project: Path, fingerprint: Mapping[str, object]) -> None:
        self._project = project
        self._fingerprint = fingerprint

    @contextlib.contextmanager
    def fresh(self) -> Iterator[HostMachine]:
        """Return the host; files put there are removed afterwards. See `check_unchanged`."""
        check_unchanged()
        machine = HostMachine(self._project)
        try:
            yield machine
        finally:
            machine.tidy()

    def environment(self) -> Mapping[str, object]:
        """Return the fingerprint of the host and of the programs."""
        return self._fingerprint

    def close(self) -> None:
        """Nothing to free."""


class HostLaboratory:
    """A laboratory with one machine, this one; implements `machine.Laboratory`.

    Parameters
    ----------
    allow_changes
        Whether experiments may change settings of the machine.
    project
        Directory in which programs run; default: the project's.
    """

    lane = Lane.HOST

    def __init__(self, *, allow_changes: bool = False, project: Path | None = None) -> None:
        self._allow_changes = allow_changes
        self._project = project_directory() if project is None else project

    def source(self, kernel: str, experiment: Experiment, lane: Lane = Lane.HOST) -> HostSource:
        """Run the preparation on the host and return the source.

        Raises
        ------
        ChangesRefused
            If the experiment changes the machine and that is not allowed.
        HarnessError
            If the preparation fails, or a killed run left the machine changed.
        """
        if kernel != HOST or lane is not Lane.HOST:
            raise HarnessError(f"the host runs its own kernel, not {kernel} in the {lane} lane")
        wanted = experiment.machine
        if wanted.commandline:
            raise KernelFeatureMissing(
                f"the host was not booted with {wanted.commandline} for this experiment"
            )
        if wanted.without_modules or wanted.modules:
            raise KernelFeatureMissing("the host's kernel has the modules that it has")
        if wanted.processors > len(os.sched_getaffinity(0)):
            raise KernelFeatureMissing(
                f"the host has fewer than {wanted.processors} processors for this experiment"
            )
        if experiment.changes_machine and not self._allow_changes:
            raise ChangesRefused(
                "changes settings of this machine, which was not allowed",
                hint="add --allow-host-changes",
            )
        check_unchanged()
        source = HostSource(self._project, self.fingerprint(kernel, experiment, lane))
        if experiment.prepare:
            with source.fresh() as machine:
                done = machine.execute(experiment.prepare, timeout=experiment.timeout_s)
            if done.status != 0:
                said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
                reason = said[0] if said else f"exit status {done.status}"
                raise HarnessError(f"preparation {' '.join(experiment.prepare[:3])}: {reason}")
        return source

    def fingerprint(self, kernel: str, experiment: Experiment, lane: Lane) -> Mapping[str, object]:
        """Return the kernel, the machine, and the hash of what the experiment runs."""
        return {
            "kernel": {"label": HOST, "release": os.uname().release},
            "host": host_facts(),
            "programs": _programs(self._project, experiment),
        }

    def labels(self) -> Sequence[str]:
        """Return the only label."""
        return (HOST,)

    def close(self) -> None:
        """Nothing runs on after its command."""


def check_unchanged() -> None:
    """Refuse a machine that a killed run left changed: it would be measured so.

    Raises
    ------
    HarnessError
        With the newest change.
    """
    found = damage(KINDS)
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise HarnessError(
            f"a killed run left this machine changed: {found[0]}{more}",
            hint="hyperbox doctor --repair",
        )


def host_facts() -> dict[str, object]:
    """Return processor, number of CPUs, kernel, load averages and memory of this machine."""
    cpuinfo = _lines("/proc/cpuinfo")
    model = next((line.partition(":")[2].strip() for line in cpuinfo if "model name" in line), "")
    memory = next((line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "")
    system = os.uname()
    return {
        "cpu": model or system.machine,
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": system.release,
        "load": list(os.getloadavg()),
        "memory_kib": int(memory.split()[1]) if memory else 0,
    }


def _programs(project: Path, experiment: Experiment) -> str:
    """Return the hash of the files that an experiment's programs are made of.

    Those are what its command lines name in the project, and the Python that such a program
    may import: suites, workloads, and hyperbox without its harness.
    """
    package = _PACKAGE_PARENT / "hyperbox"
    words = (*experiment.program, *experiment.prepare)
    found = {project / word for word in words if os.path.isfile(project / word)}  # noqa: PTH113
    for top in (package, project / "suites", project / "workloads"):
        found |= set(top.rglob("*.py"))
    for half in ("harness", "cli"):
        found -= set((package / half).rglob("*.py"))
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(f"{os.path.relpath(path, project)}\0{files.sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _supervised(
    argv: Sequence[str],
    timeout: float,
    environment: Mapping[str, str],
    streams: tuple[IO[bytes], IO[bytes]],
    directory: Path,
) -> ProgramEnd:
    """Run a program under a supervisor, whose word on it is returned."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reading, "rb") as report:
        try:
            # -P: nothing is imported from where it runs; -S: nor from the venv, which takes time
            words = [sys.executable, "-P", "-S", "-m", supervisor.__name__]
            process = spawn(
                [*words, str(writing), str(timeout), *argv],
                environment=environment,
                pass_fds=[writing],
                stdout=streams[0],
                stderr=streams[1],
                cwd=directory,
            )
            ends_by(process, signal.SIGTERM)
        finally:
            os.close(writing)
        try:
            status = process.wait(timeout + _GRACE_S)
        except subprocess.TimeoutExpired:
            raise HarnessError(f"{argv[0]} cannot be ended: its supervisor hangs") from None
        finally:
            if process.poll() is None:  # an interruption: it ends the program
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE_S)
            stop(process)
        said = report.read().splitlines()
    end = ProgramEnd.decode(said[-1]) if said else ProgramEnd()
    return replace(end, status=status, output=(-1, -1)) if status else end


def _undo_changes_of(pids: Sequence[int]) -> None:
    for one in repair(KINDS, pids=pids):
        if one.outcome is UndoOutcome.FAILED:
            raise HarnessError(
                f"a program left this machine changed: {one.left}: {one.reason}",
                hint="hyperbox doctor --repair",
            )


def _kernel_messages() -> list[str]:
    """Return the kernel's messages; empty where the user may not read them."""
    try:
        return run(["dmesg"], timeout=30, check=False).text().splitlines()
    except HarnessError:
        return []


@functools.cache
def _config() -> str:
    with contextlib.suppress(OSError):
        return Path(f"/boot/config-{os.uname().release}").read_text(errors="replace")
    with contextlib.suppress(HarnessError):
        return run(["zcat", "/proc/config.gz"], timeout=30).text()
    return ""


def _lines(path: str) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="replace").splitlines()
    return []
