"""OCI runtimes by their command line: crun, runc.

Follows the runtime specification's command line (opencontainers/runtime-tools, docs/command-line-
interface.md), which crun and runc share. A container is a change of the machine: it is on record
before it is started, so that one whose hyperbox was killed is removed by a repair.
"""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import HarnessError, MissingDependency
from hyperbox.journal import ChangeKind, UndoOutcome
from hyperbox.linux.mounts import mounts
from hyperbox.processes import require, run
from hyperbox.records import Change

__all__ = ["CONTAINER", "RUNTIMES", "OciRuntime", "find_runtime", "runtime_of"]

RUNTIMES = ("crun", "runc")
"""Names of known runtimes, the preferred one first."""
_PATIENCE_S = 30.0
_LOG_FLAG = "SECCOMP_FILTER_FLAG_LOG"


@dataclass(frozen=True)
class OciRuntime:
    """A runtime and the directory in which it keeps the state of our containers."""

    name: str
    program: str
    root: Path

    def command(self, *words: str) -> list[str]:
        """Return the words of a call."""
        return [self.program, "--root", str(self.root), *words]

    def version(self) -> str:
        """Return what it says of its version, in one line."""
        return run([self.program, "--version"], timeout=_PATIENCE_S).text().splitlines()[0]

    def logs_denied_calls(self) -> bool:
        """Return whether it takes flags of seccomp(2), and so has denied calls logged.

        crun takes them from 0.21 on and does not say so (1.21). runc refuses a profile with flags
        before 1.2, and lists in its features what it takes.
        """
        if self.name == "crun":
            return True
        done = run([self.program, "features"], timeout=_PATIENCE_S, check=False)
        try:
            return _LOG_FLAG in json.loads(done.stdout)["linux"]["seccomp"]["supportedFlags"]
        except (ValueError, KeyError, TypeError):
            return False

    def delete(self, name: str) -> None:
        """Kill a container and remove what the runtime knows of it; harmless if there is none.

        Raises
        ------
        HarnessError
            If the runtime cannot.
        """
        run(self.command("delete", "--force", name), timeout=_PATIENCE_S)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a container's first process.

        Raises
        ------
        HarnessError
            If the runtime cannot.
        """
        run(self.command("kill", name, number.name.removeprefix("SIG")), timeout=_PATIENCE_S)

    def started(self, name: str) -> bool:
        """Return whether a container's command runs.

        The runtimes say "running" before the execve(2), which may fail: until it, the process has
        the runtime's own program, or runc's sealed copy of it (CVE-2019-5736).
        """
        done = run(self.command("state", name), timeout=_PATIENCE_S, check=False)
        try:
            state = json.loads(done.stdout)
            program = Path("/proc", str(int(state["pid"])), "exe")
            own = program.samefile(self.program) or "/memfd:" in str(program.readlink())
        except (ValueError, KeyError, TypeError, OSError):
            return False
        return state["status"] in ("running", "paused") and not own

    def knows(self, name: str) -> bool:
        """Return whether there is a container of that name."""
        return run(self.command("state", name), timeout=_PATIENCE_S, check=False).status == 0


def find_runtime(root: Path, wanted: str | None = None) -> OciRuntime:
    """Return the runtime to use: the one asked for, else the first that works here.

    crun refuses a machine that has cgroup v1 and v2 side by side ("cgroups in hybrid mode not
    supported", crun 1.8), so runc is taken there.

    Raises
    ------
    MissingDependency
        If it is not installed.
    """
    if wanted is not None:
        return OciRuntime(wanted, require(wanted, wanted), root / wanted)
    names = [name for name in RUNTIMES if not (name == "crun" and _hybrid_cgroups())]
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return OciRuntime(name, found, root / name)
    raise MissingDependency(
        f"no OCI runtime is installed: {' or '.join(names)}",
        hint=f"apt-get install --no-install-recommends {names[0]}",
    )


def _hybrid_cgroups() -> bool:
    return bool(mounts("cgroup")) and bool(mounts("cgroup2"))


def runtime_of(change: Change) -> OciRuntime:
    """Return the runtime that holds a container on record."""
    return OciRuntime(change.text("name"), change.text("program"), Path(change.text("root")))


def _describe(change: Change) -> str:
    bundle = Path(change.text("bundle"))
    try:
        known = runtime_of(change).knows(change.subject)
    except (HarnessError, MissingDependency):
        known = False
    return f"container {change.subject} is there" if known or bundle.exists() else ""


def _undo(change: Change) -> UndoOutcome:
    bundle = Path(change.text("bundle"))
    runtime = runtime_of(change)
    known = runtime.knows(change.subject)
    if not known and not bundle.exists():
        return UndoOutcome.NOTHING
    if known:
        runtime.delete(change.subject)
    shutil.rmtree(bundle, ignore_errors=True)
    return UndoOutcome.UNDONE


CONTAINER = ChangeKind("container", _describe, _undo)
"""A container by its name: facts `name`, `program`, `root` of the runtime, and `bundle`.

For people it has `command`, `rootfs` and `created` as well.
"""
