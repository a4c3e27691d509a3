"""The one door for starting processes.

Every child gets a sanitised environment, a session of its own (so that the whole
group can be killed), SIGKILL as parent-death signal and, for `run`, a timeout. The
death signal is set by setpriv(1) rather than a ``preexec_fn``, which is unsafe in a
process with threads. It comes for deaths after it was set (prctl(2)), so a shell in
between ends if the parent died before.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hyperbox.errors import HarnessError, MissingDependency

__all__ = ["Completed", "end_started", "ends_by", "require", "run", "spawn", "stop"]

_Started = tuple[int, signal.Signals]
_started: weakref.WeakKeyDictionary[subprocess.Popen[bytes], _Started] = weakref.WeakKeyDictionary()
_started_lock = threading.Lock()

_KEPT = ("PATH", "HOME", "USER", "TMPDIR", "TERM", "http_proxy", "https_proxy", "no_proxy")
_SEARCH_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
# $1 is the parent; what shells export by themselves does not reach the program.
_UNLESS_ORPHANED = '[ "$PPID" -eq "$1" ] || exit 1; shift; unset PWD OLDPWD SHLVL; exec "$@"'


@dataclass(frozen=True)
class Completed:
    """What a finished process left: exit status (negative: signal) and its streams."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    def text(self) -> str:
        """Return standard output as text without the final newline."""
        return self.stdout.decode(errors="replace").rstrip("\n")


def require(program: str, package: str) -> str:
    """Return the full path of `program`, or say which Debian package has it.

    Raises
    ------
    MissingDependency
        If the program is not on PATH.
    """
    found = shutil.which(program, path=_SEARCH_PATH)
    if found is None:
        raise MissingDependency(
            f"{program} is not installed", hint=f"apt-get install --no-install-recommends {package}"
        )
    return found


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    cwd: Path | None = None,
    outlives: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own that dies with the calling thread.

    Parameters
    ----------
    outlives
        Whether it goes on when the caller dies, and is left alone by `end_started`.

    Raises
    ------
    MissingDependency
        If the program does not exist.
    """
    words = [os.fspath(word) for word in argv]
    if shutil.which(words[0], path=_SEARCH_PATH) is None:
        raise MissingDependency(f"{words[0]} cannot be started: no such program")
    process = subprocess.Popen(
        words if outlives else [*_mortal(), *words],
        env=_environment(environment),
        pass_fds=pass_fds,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        start_new_session=True,
    )
    if not outlives:
        with _started_lock:
            _started[process] = threading.get_ident(), signal.SIGKILL
    return process


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    check: bool = True,
    data: bytes | None = None,
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
) -> Completed:
    """Run a process to its end and give what it left.

    Parameters
    ----------
    timeout
        Seconds until the whole process group is killed.
    check
        Whether an exit status other than 0 raises.
    data
        Bytes for standard input.

    Raises
    ------
    HarnessError
        On timeout, or with `check` on a non-zero status; the failed command is in the
        message, ready to paste.
    """
    words = tuple(os.fspath(word) for word in argv)
    process = spawn(
        words,
        environment=environment,
        pass_fds=pass_fds,
        stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
    )
    try:
        out, err = process.communicate(data, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"no end after {timeout:g} s: {shlex.join(words)}") from error
    finally:
        stop(process)
    done = Completed(words, process.returncode, out, err)
    if check and done.status != 0:
        tail = err.decode(errors="replace").strip().splitlines()[-1:] or ["no error output"]
        raise HarnessError(f"exit status {done.status}: {shlex.join(words)}: {tail[0]}")
    return done


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its whole group, and reap it; harmless when it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def ends_by(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Let `end_started` send another signal than SIGKILL, and to the process alone.

    It ends what it has started by itself.
    """
    with _started_lock:
        _started[process] = _started[process][0], number


def end_started(thread: int | None = None) -> None:
    """End what a thread (`threading.get_ident`) has started here, or what any has, with groups.

    For other threads to call: the one that waits for such a process finds it dead.
    """
    with _started_lock:
        found = [(one, how) for one, (by, how) in _started.items() if thread in (None, by)]
    for process, end_signal in found:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if end_signal is signal.SIGKILL:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    os.kill(process.pid, end_signal)


def _mortal() -> Sequence[str]:
    """Return the words before a command that let it die with the calling thread."""
    guard = ("sh", "-c", _UNLESS_ORPHANED, "sh", str(os.getpid()))
    return ("setpriv", "--pdeathsig", "KILL", "--", *guard)


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    kept["LC_ALL"] = "C.UTF-8"
    kept["PATH"] = _SEARCH_PATH
    return kept | dict(extra or {})
