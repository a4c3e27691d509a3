"""A container from its start to its end, in the foreground, with the exit codes of docker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import IO

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.files import write_json
from hyperbox.isolation.profile import Profile
from hyperbox.journal import begin, state_directory
from hyperbox.linux.oci_runtime import CONTAINER, OciRuntime, find_runtime
from hyperbox.processes import spawn, stop
from hyperbox.runtime.bundle import Container, config_json
from hyperbox.runtime.registry import facts, new_name

__all__ = ["Ended", "RunningContainer", "execute", "prepared"]

RUNTIME_FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
"""Exit codes as ``docker run`` has them, beside the command's own."""
_FORWARDED = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")
)


@dataclass(frozen=True)
class Ended:
    """How a container ended: a status for the shell, and why if its command never ran."""

    status: int
    reason: str = ""

    def __str__(self) -> str:
        """Return it as recordings have it: ``exit 0``, ``signal 9``, ``not started``."""
        if self.reason:
            return "not started"
        return f"signal {self.status - 128}" if self.status > 128 else f"exit {self.status}"


class RunningContainer:
    """A container that has a bundle and is on record; `run` starts it and waits."""

    def __init__(self, name: str, runtime: OciRuntime, bundle: Path, container: Container) -> None:
        self.name = name
        self.container = container
        self.runtime = runtime
        self.bundle = bundle

    @property
    def cgroups_path(self) -> str:
        """Return its cgroup below the root of each hierarchy.

        It is one level deep: runc 1.1 leaves the levels above behind in every hierarchy.
        """
        return f"/hyperbox-{self.name}"

    def confine(self, profile: Profile | None) -> None:
        """Put the command under another profile than the container asks for; None for none."""
        container = replace(self.container, seccomp=profile)
        write_json(self.bundle / "config.json", config_json(container, self.cgroups_path))

    def run(self, *, stdin: int | IO[bytes] = 0, stdout: int | IO[bytes] = 1) -> Ended:
        """Start the command, by default with this process's streams, and wait for its end.

        Signals to this process go to the command meanwhile. What the runtime has to complain
        of, it writes to standard error itself.
        """
        words = ("run", "--bundle", str(self.bundle), self.name)
        return _waited(self.runtime, words, self.bundle / "runtime.log", stdin, stdout)


def execute(
    runtime: OciRuntime, name: str, command: Sequence[str], *, terminal: bool = False
) -> Ended:
    """Run a further command in a container that runs, under its filter; wait for its end.

    It has this process's streams. Signals to this process go to the command meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="hyperbox-exec-") as place:
        words = ("exec", *(["--tty"] if terminal else []), name, *command)
        return _waited(runtime, words, Path(place) / "runtime.log", 0, 1)


def _waited(
    runtime: OciRuntime,
    words: Sequence[str],
    log: Path,
    stdin: int | IO[bytes],
    stdout: int | IO[bytes],
) -> Ended:
    logged = runtime.command("--log", str(log), "--log-format", "json", *words)
    process = spawn(logged, stdin=stdin, stdout=stdout, stderr=2)
    try:
        with _forwarding(process):
            process.wait()
    finally:
        stop(process)
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return _ended(status, _complaint(log) if status else "")


def _ended(status: int, complaint: str) -> Ended:
    """Return how it ended; the runtime logs a complaint only if the command never ran."""
    lower = complaint.lower()
    if not complaint:
        return Ended(status)
    if "not found" in lower or "no such file" in lower:
        return Ended(NOT_FOUND, complaint)
    if "permission denied" in lower or "exec format" in lower or "is a directory" in lower:
        return Ended(NOT_EXECUTABLE, complaint)
    return Ended(RUNTIME_FAILED, complaint)


def _complaint(log: Path) -> str:
    """Return the last error in a runtime's log (one JSON object a line); empty if none."""
    found = ""
    with contextlib.suppress(OSError):
        for line in log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, AttributeError):
                entry = json.loads(line)
                if entry.get("level") == "error":
                    found = str(entry.get("msg", ""))
    return found


@contextlib.contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def prepared(
    container: Container, *, runtime: str | None = None, name: str | None = None
) -> Iterator[RunningContainer]:
    """Make a container's bundle; it is removed after the block, with what still runs of it.

    Parameters
    ----------
    runtime
        ``crun`` or ``runc``; None for the first that works here.

    Raises
    ------
    ConfigError
        If the root file system is not a directory.
    HyperboxError
        If no runtime is installed, or the bundle cannot be written.
    """
    if not container.rootfs.is_dir():
        raise ConfigError(f"{container.rootfs} is not a directory", hint="--rootfs DIR")
    name = name or new_name()
    root = state_directory() / "runtime"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = find_runtime(root, runtime)
    bundle = Path(tempfile.mkdtemp(prefix=f"bundle-{name}-", dir=root))
    record = begin(
        CONTAINER,
        name,
        name=found.name,
        program=found.program,
        root=os.fspath(found.root),
        bundle=os.fspath(bundle),
        **facts(container),
    )
    running = RunningContainer(name, found, bundle, container)
    try:
        running.confine(container.seccomp)
        yield running
    except OSError as error:
        raise HarnessError(f"{bundle}: {error.strerror}") from error
    finally:
        record.undo()
