"""A process that denies reads while nobody serves them: without one, they would find zeros.

``python3 -m hyperbox.storage.lazy.fanotify_guard GROUP FILE SECONDS`` holds the descriptor of a
fanotify group beside the worker and its supervisor, so that the group does not end with them
(`hyperbox.linux.fanotify`: a closed group allows everything). Whoever serves has locked the file.
While nobody has, readers wait for so many seconds, and are denied from then on until somebody
serves again. It ends when the file is removed. It reads no data: there is little that could end it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

from hyperbox.errors import HarnessError
from hyperbox.files import write_bytes
from hyperbox.linux.fanotify import deny_lost, read_events
from hyperbox.processes import spawn

__all__ = ["main", "start_guard"]

_LOOK_S = 0.2
_PATIENCE_S = 15.0  # more than a supervisor takes to start its program again
_READY = b"holds\n"


def start_guard(group: int, file: Path, *, patience_s: float = _PATIENCE_S) -> None:
    """Make the file and start the guard of a group; it goes on when this process dies.

    Parameters
    ----------
    patience_s
        Seconds that readers wait for somebody who serves.

    Raises
    ------
    HarnessError
        If it does not start.
    """
    write_bytes(file, b"", 0o600)
    module = "hyperbox.storage.lazy.fanotify_guard"
    project = Path(__file__).resolve().parents[3]
    process = spawn(
        [sys.executable, "-m", module, str(group), os.fspath(file), f"{patience_s:g}"],
        environment={"PYTHONPATH": os.fspath(project)},
        pass_fds=(group,),
        stdout=subprocess.PIPE,
        outlives=True,
    )
    assert process.stdout is not None
    with process.stdout as said:
        if said.readline() != _READY:
            file.unlink(missing_ok=True)
            raise HarnessError("the guard of a fanotify group does not start")


def main() -> int:
    """Guard until the file is removed; return the exit status."""
    group, file, patience_s = int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    sys.stdout.buffer.write(_READY)
    sys.stdout.close()
    alone_since: float | None = None
    while file.exists():
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            alone_since = None
        else:
            alone_since = alone_since or time.monotonic()
            if time.monotonic() - alone_since >= patience_s:
                _deny(group)
            fcntl.flock(handle, fcntl.LOCK_UN)
        time.sleep(_LOOK_S)
    return 0


def _deny(group: int) -> None:
    """Deny what a dead process had taken, and all that waits."""
    deny_lost(group)
    for event in read_events(group):
        event.deny(group)
        os.close(event.handle)


if __name__ == "__main__":
    sys.exit(main())
