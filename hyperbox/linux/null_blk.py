"""null_blk: a disk in memory with a constant latency, for storage in exact virtual time.

Follows Documentation/block/null_blk.rst. Made through configfs (4.14+), because
``memory_backed`` is a module parameter in newer kernels only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.journal import ChangeKind, UndoOutcome, begin
from hyperbox.linux.knob import read_knob, write_knob
from hyperbox.linux.modules import load_module
from hyperbox.linux.mounts import mounted, mounts
from hyperbox.linux.refusal import refusal
from hyperbox.records import Change

__all__ = ["NULL_BLK", "null_block_device"]

_CONFIGFS = Path("/sys/kernel/config")
_TIMER = 2  # irqmode: a request completes when its timer fires
_MULTI_QUEUE = 2  # queue_mode: blk-mq


@contextlib.contextmanager
def null_block_device(name: str, *, size_mib: int, latency_ns: int) -> Iterator[Path]:
    """Return ``/dev/...`` of a disk in memory whose every request takes `latency_ns`.

    Memory is taken page by page as the disk is written, up to `size_mib`. Journalled.

    Raises
    ------
    KernelFeatureMissing
        If this kernel has no null_blk.
    WorkloadError
        If there is one of that name already, or the kernel refuses.
    """
    with contextlib.ExitStack() as stack:
        load_module("null_blk", "nr_devices=0")
        top = stack.enter_context(mounted("configfs", _CONFIGFS)) / "nullb"
        item = top / name
        record = begin(NULL_BLK, name)
        try:
            item.mkdir()
        except OSError as error:
            record.forget()
            # ENOENT: a null_blk without a directory in configfs
            raise refusal(f"cannot make {item}", error, missing=(errno.ENOENT,)) from error
        stack.callback(record.undo)
        settings = {
            "size": size_mib,
            "blocksize": 4096,
            "memory_backed": 1,
            "irqmode": _TIMER,
            "completion_nsec": latency_ns,
            "queue_mode": _MULTI_QUEUE,
            "submit_queues": 1,
        }
        for key, value in settings.items():
            write_knob(item / key, value)
        write_knob(item / "power", 1)
        yield _device(name, read_knob(item / "index"))


def _undo(change: Change) -> UndoOutcome:
    with contextlib.ExitStack() as stack:
        found = mounts("configfs")
        top = found[0].point if found else stack.enter_context(mounted("configfs", _CONFIGFS))
        item = top / "nullb" / change.subject
        if not item.exists():
            return UndoOutcome.NOTHING
        if read_knob(item / "power") == "1":
            for device in _candidates(change.subject, read_knob(item / "index")):
                _refuse_used(device)  # powering it off would not ask
            write_knob(item / "power", 0)
        try:
            item.rmdir()
        except OSError as error:
            raise refusal(f"cannot remove {item}", error) from error
    return UndoOutcome.UNDONE


def _refuse_used(device: Path) -> None:
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise WorkloadError(f"{device} is in use") from error


def _describe(change: Change) -> str:
    found = mounts("configfs")  # where it is not mounted, only a repair can tell
    gone = found and not (found[0].point / "nullb" / change.subject).exists()
    return "" if gone else f"null_blk disk {change.subject} is there, was not"


NULL_BLK = ChangeKind("null_blk", _describe, _undo)
"""A null_blk disk by its name in configfs; no facts."""


def _candidates(name: str, index: str) -> tuple[Path, Path]:
    """Newer kernels name a disk after its directory, older after its index."""
    return Path("/dev", name), Path("/dev", f"nullb{index}")


def _device(name: str, index: str) -> Path:
    candidates = _candidates(name, index)
    for _ in range(100):
        for candidate in candidates:
            if candidate.is_block_device():
                return candidate
        time.sleep(0.01)  # devtmpfs follows the kernel within milliseconds
    raise WorkloadError(f"null_blk made no {' nor '.join(map(str, candidates))}")
