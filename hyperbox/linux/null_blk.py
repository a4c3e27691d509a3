"""Memory-backed null_blk devices with a constant latency, through configfs.

Follows ``Documentation/block/null_blk.rst``. The latency comes from a kernel timer
(``irqmode=2``), so it is exact in virtual time and costs no busy waiting. configfs,
because ``memory_backed`` is no module parameter on 5.10. Needs root and CONFIG_BLK_DEV_NULL_BLK.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hyperbox.errors import HarnessError, KernelFeatureMissing
from hyperbox.linux import module
from hyperbox.processes import run

__all__ = ["NullBlockDevice", "device"]

_CONFIGFS = Path("/sys/kernel/config")
_TIMER_COMPLETION = "2"
_MULTIQUEUE = "2"


class NullBlockDevice:
    """A device of this module, given by its node in ``/dev``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pages_written(self) -> int:
        """Give the 4 KiB pages written so far, from ``/sys/block/<device>/stat``."""
        fields = (Path("/sys/block") / self.path.name / "stat").read_text().split()
        return int(fields[6]) * 512 // 4096


@contextlib.contextmanager
def device(*, size_mib: int, latency_ns: int, name: str = "hyperbox") -> Iterator[NullBlockDevice]:
    """Make a device for the block; all its memory is freed after.

    Parameters
    ----------
    size_mib
        Capacity in MiB; memory is taken as it is written.
    latency_ns
        Completion time of every request in ns.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no null_blk or no configfs.
    """
    module.load("null_blk", "nr_devices=0")
    _mount_configfs()
    directory = _CONFIGFS / "nullb" / f"{name}-{os.getpid()}"
    before = _block_devices()
    try:
        directory.mkdir()
    except OSError as error:
        raise KernelFeatureMissing(f"null_blk makes no device: {error.strerror}") from error
    try:
        settings = {
            "size": str(size_mib),
            "blocksize": "4096",
            "memory_backed": "1",
            "queue_mode": _MULTIQUEUE,
            "submit_queues": "1",
            "irqmode": _TIMER_COMPLETION,
            "completion_nsec": str(latency_ns),
            "power": "1",
        }
        for key, value in settings.items():
            (directory / key).write_text(value)
        (new,) = _block_devices() - before
        yield NullBlockDevice(Path("/dev") / new)
    finally:
        (directory / "power").write_text("0")
        directory.rmdir()


def _mount_configfs() -> None:
    if (_CONFIGFS / "nullb").is_dir():
        return
    try:
        run(["mount", "-t", "configfs", "configfs", _CONFIGFS], timeout=30)
    except HarnessError as error:
        raise KernelFeatureMissing(f"configfs cannot be mounted: {error.message}") from error


def _block_devices() -> set[str]:
    return {path.name for path in Path("/sys/block").iterdir()}
