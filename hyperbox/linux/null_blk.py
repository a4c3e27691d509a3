"""null_blk: a disk in memory with a constant latency, for storage in exact virtual time.

Follows Documentation/block/null_blk.rst. Made through configfs (4.14+), because
``memory_backed`` is a module parameter in newer kernels only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.linux.knob import read_knob, write_knob
from hyperbox.linux.modules import load_module
from hyperbox.linux.mounts import mounted

__all__ = ["null_block_device"]

_CONFIGFS = Path("/sys/kernel/config")
_TIMER = 2  # irqmode: a request completes when its timer fires
_MULTI_QUEUE = 2  # queue_mode: blk-mq


@contextlib.contextmanager
def null_block_device(name: str, *, size_mib: int, latency_ns: int) -> Iterator[Path]:
    """Give ``/dev/...`` of a disk in memory whose every request takes `latency_ns`.

    Memory is taken page by page as the disk is written, up to `size_mib`.

    Raises
    ------
    KernelFeatureMissing
        If this kernel has no null_blk.
    """
    with contextlib.ExitStack() as stack:
        load_module("null_blk", "nr_devices=0")
        top = stack.enter_context(mounted("configfs", _CONFIGFS)) / "nullb"
        item = top / name
        try:
            item.mkdir()
        except FileNotFoundError as error:
            raise KernelFeatureMissing("null_blk has no configfs directory") from error
        stack.callback(item.rmdir)
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
        stack.callback(write_knob, item / "power", 0)
        yield _device(name, read_knob(item / "index"))


def _device(name: str, index: str) -> Path:
    """Find the disk: newer kernels name it after its directory, older after its index."""
    candidates = (Path("/dev", name), Path("/dev", f"nullb{index}"))
    for _ in range(100):
        for candidate in candidates:
            if candidate.is_block_device():
                return candidate
        time.sleep(0.01)  # devtmpfs follows the kernel within milliseconds
    raise WorkloadError(f"null_blk made no {' nor '.join(map(str, candidates))}")
