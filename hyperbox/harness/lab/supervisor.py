"""Runs one program on the host as its subreaper, so that all it has started ends with it.

``supervisor.py DESCRIPTOR SECONDS PROGRAM [ARGUMENT ...]`` is started by `HostMachine`. The
program shares its process group, which the harness can kill as a whole.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hyperbox.errors import WorkloadError
from hyperbox.linux.process_tree import become_subreaper, end_children

__all__ = ["ProgramEnd", "main"]

# Of a group whose leader this is; a program may send them to all of its own.
_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
# Python ignores these; a shell's pipelines rely on the first.
_DEFAULT = (*_IGNORED, signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True)
class ProgramEnd:
    """What became of a program.

    `status` is None for one that was not started (`error` says why) or outlived its time;
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

    The number of the program is reported as soon as it is known: both may be killed.
    """
    report, seconds, program = int(argv[0]), float(argv[1]), argv[2:]
    os.set_inheritable(report, False)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    try:
        become_subreaper()
        pid = _start(program)
        os.write(report, ProgramEnd(pids=(pid,)).encode())
        end = _until_end(pid, seconds)
    except (OSError, WorkloadError) as error:
        end = ProgramEnd(error=f"{program[0]} cannot be run: {error}")
    os.write(report, end.encode())


def _start(argv: Sequence[str]) -> int:
    if shutil.which(argv[0]) is None:
        raise WorkloadError("no such program")
    words = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
    return os.posix_spawnp(words[0], words, os.environ, setsigdef=_DEFAULT)


def _until_end(pid: int, seconds: float) -> ProgramEnd:
    select.select([os.pidfd_open(pid)], [], [], seconds)
    sizes = os.fstat(1).st_size, os.fstat(2).st_size
    ended, status = os.waitpid(pid, os.WNOHANG)
    left = end_children()
    return ProgramEnd(os.waitstatus_to_exitcode(status) if ended else None, sizes, (pid, *left))


if __name__ == "__main__":
    main(sys.argv[1:])
