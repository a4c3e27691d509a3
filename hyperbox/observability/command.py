"""Starts a command that waits before its first instruction until it is traced."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence

from hyperbox.errors import ConfigError
from hyperbox.processes import spawn, stop

__all__ = ["exit_code", "let_go", "stopped_command"]

_GATE = 'kill -STOP $$; exec "$@"'


@contextlib.contextmanager
def stopped_command(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that becomes the command by one execve(2) when `let_go` lets it.

    It has the streams, directory and environment of this process, and a session of its own. What
    of its group runs at the end of the block is killed.

    Raises
    ------
    ConfigError
        If there is no such program.
    """
    path = shutil.which(command[0])
    if path is None:
        raise ConfigError(f"{command[0]}: no such program, or not executable")
    # The shell does not search: it would try one execve for each directory of PATH.
    words = ("sh", "-c", _GATE, "sh", os.path.abspath(path), *command[1:])  # noqa: PTH100
    process = spawn(words, environment=os.environ, stdin=0, stdout=1, stderr=2, outlives=True)
    try:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        yield process
    finally:
        stop(process)


def let_go(process: subprocess.Popen[bytes]) -> None:
    """Let a stopped command begin."""
    process.send_signal(signal.SIGCONT)


def exit_code(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code that a shell has for how it ended: 128+n for signal n."""
    status = process.wait()
    return status if status >= 0 else 128 - status
