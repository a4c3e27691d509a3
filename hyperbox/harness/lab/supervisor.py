"""Runs one program on the host as its subreaper, so that all it has started ends with it.

``supervisor.py DESCRIPTOR SECONDS PROGRAM [ARGUMENT ...]`` is started by `HostMachine`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hyperbox.errors import WorkloadError
from hyperbox.linux.process_tree import become_subreaper, end_children

__all__ = ["ProgramEnd", "main"]

_AWAITED = (signal.SIGCHLD, signal.SIGTERM)
# A shell's pipelines rely on the first.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True)
class ProgramEnd:
    """What became of a program.

    `status` is None for one that was not started or was stopped (`error` says why) or outlived
    its time;
    `output` are the sizes of its output and its error output when it ended, in bytes (-1: all
    that is there), and `pids` the program and every process that it left running.
    """

    status: int | None = None
    output: tuple[int, int] = (-1, -1)
    pids: tuple[int, ...] = ()
    error: str = ""

    def encode(self) -> bytes:
        """Return the line that reports it."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> ProgramEnd:
        """Return a reported end."""
        found = json.loads(line)
        out, err = found["output"]
        return cls(found["status"], (out, err), tuple(found["pids"]), found["error"])


def main(argv: Sequence[str]) -> None:
    """Run the program, end what it leaves, and report on the descriptor.

    The number of the program is reported as soon as it is known. SIGTERM, which the harness
    sends and the kernel when the harness is gone, ends the program too.
    """
    report, seconds, program = int(argv[0]), float(argv[1]), argv[2:]
    os.set_inheritable(report, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    try:
        become_subreaper(death_signal=signal.SIGTERM)
        pid = _start(program)
        os.write(report, ProgramEnd(pids=(pid,)).encode())
        end = _until_end(pid, seconds)
    except (OSError, WorkloadError) as error:
        end = ProgramEnd(error=f"{program[0]} cannot be run: {error}")
    with contextlib.suppress(BrokenPipeError):  # nobody is left to read it
        os.write(report, end.encode())


def _start(argv: Sequence[str]) -> int:
    if shutil.which(argv[0]) is None:
        raise WorkloadError("no such program")
    words = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
    return os.posix_spawnp(
        words[0], words, os.environ, setsid=True, setsigmask=(), setsigdef=_IGNORED_BY_PYTHON
    )


def _until_end(pid: int, seconds: float) -> ProgramEnd:
    deadline = time.monotonic() + seconds
    stopped = False
    while not (ended := _has_ended(pid)) and not stopped and time.monotonic() < deadline:
        found = signal.sigtimedwait(_AWAITED, max(deadline - time.monotonic(), 0))
        stopped = found is not None and found.si_signo == signal.SIGTERM
    sizes = os.fstat(1).st_size, os.fstat(2).st_size  # before anybody can know that it has ended
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if ended else None
    left = end_children()
    return ProgramEnd(status, sizes, (pid, *left), "stopped by the harness" if stopped else "")


def _has_ended(pid: int) -> bool:
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, pid, options) is not None


if __name__ == "__main__":
    main(sys.argv[1:])
