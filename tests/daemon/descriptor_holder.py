"""A program that holds a pipe and a memory file: what it reads, it writes down with its start.

``python3 descriptor_holder.py FIFO OUT`` ends when the pipe does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from hyperbox.daemon.descriptor_store import forget, inherited, keep
from hyperbox.daemon.notify import notify


def main(fifo: str, out: str) -> None:
    """Read and write down."""
    kept = inherited()
    assert inherited() is kept
    if kept:
        memory, pipe = kept["memory"], kept["pipe"]
    else:
        memory = os.memfd_create("count")
        assert keep("forgotten", os.memfd_create("spare"))
        assert keep("memory", memory)
        assert forget("forgotten")
        os.mkfifo(fifo)
        pipe = os.open(fifo, os.O_RDONLY)
        assert keep("pipe", pipe)
    starts = len(os.pread(memory, 99, 0)) + 1
    os.pwrite(memory, b"x" * starts, 0)
    notify("READY=1")
    while data := os.read(pipe, 4096):
        found = {
            "pid": os.getpid(),
            "starts": starts,
            "data": data.decode(),
            "names": sorted(kept),
            "leaked": sorted(name for name in os.environ if name.startswith("LISTEN_")),
            "inheritable": any(os.get_inheritable(handle) for handle in (memory, pipe)),
        }
        with Path(out).open("a") as stream:
            stream.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
