"""zram: a compressed disk in memory. Follows Documentation/admin-guide/blockdev/zram.rst."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.journal import ChangeKind, ChangeRecord, UndoOutcome, begin
from hyperbox.linux.knob import read_knob, write_knob
from hyperbox.linux.modules import load_module
from hyperbox.records import Change

__all__ = [
    "ZRAM",
    "ZramMemory",
    "announce_disk",
    "choose_algorithm",
    "make_disk",
    "parse_algorithms",
    "parse_mm_stat",
    "zram_device",
    "zram_memory",
]

_CONTROL = Path("/sys/class/zram-control")
_DISKS = Path("/sys/class/block")
_PATIENCE_S = 5.0  # udev may look at a disk that has just changed


@dataclass(frozen=True)
class ZramMemory:
    """What a zram disk holds and takes, in bytes; `used` includes the allocator's waste."""

    original: int
    compressed: int
    used: int
    used_max: int


def parse_algorithms(text: str) -> tuple[str, ...]:
    """Parse ``comp_algorithm``, for example ``lzo lzo-rle [lz4] zstd``."""
    return tuple(re.sub(r"[\[\]]", "", text).split())


def choose_algorithm(wanted: Sequence[str], available: Sequence[str]) -> str:
    """Return the first algorithm of `wanted` that is available.

    Raises
    ------
    KernelFeatureMissing
        If none is.
    """
    for name in wanted:
        if name in available:
            return name
    raise KernelFeatureMissing(
        f"zram compresses with {', '.join(available) or 'nothing'}; none of {', '.join(wanted)}"
    )


def parse_mm_stat(text: str) -> ZramMemory:
    """Parse ``mm_stat``; ValueError if there are fewer than its first five fields."""
    fields = [int(word) for word in text.split()]
    if len(fields) < 5:
        raise ValueError(f"{len(fields)} fields in mm_stat: {text!r}")
    return ZramMemory(fields[0], fields[1], fields[2], fields[4])


def zram_memory(device: Path) -> ZramMemory:
    """Read what a zram disk holds and takes now."""
    return parse_mm_stat(read_knob(_DISKS / device.name / "mm_stat"))


@contextlib.contextmanager
def zram_device(*, size: int, algorithms: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Return ``/dev/zramN`` of `size` bytes and the algorithm taken, the first that is there.

    Journalled.

    Raises
    ------
    KernelFeatureMissing
        If this kernel has no zram or none of the algorithms.
    """
    record = announce_disk()
    try:
        yield make_disk(record, size, algorithms)
    finally:
        record.undo()


def announce_disk() -> ChangeRecord:
    """Load the module and put on record that a disk will be made.

    Raises
    ------
    KernelFeatureMissing
        If this kernel has no zram.
    HarnessError
        If the journal cannot be written.
    """
    load_module("zram", "num_devices=0")
    return begin(ZRAM, "zram", before=_disks())


def make_disk(record: ChangeRecord, size: int, algorithms: Sequence[str]) -> tuple[Path, str]:
    """Make the disk that is on record; return its device and the algorithm taken.

    Raises
    ------
    KernelFeatureMissing
        If this kernel has none of the algorithms.
    HarnessError, WorkloadError
        If the journal cannot be written, or the kernel refuses. Undo the record in any case.
    """
    number = read_knob(_CONTROL / "hot_add")
    settings = _DISKS / f"zram{number}"
    record.note(disk=settings.name, inode=settings.stat().st_ino)
    offered = parse_algorithms(read_knob(settings / "comp_algorithm"))
    algorithm = choose_algorithm(algorithms, offered)
    write_knob(settings / "comp_algorithm", algorithm)
    write_knob(settings / "disksize", size)
    return _device(number), algorithm


def _disks() -> list[str]:
    return sorted(path.name for path in _DISKS.glob("zram*"))


def _undo(change: Change) -> UndoOutcome:
    left = _left(change)
    for disk in left:
        _remove(disk)
    return UndoOutcome.UNDONE if left else UndoOutcome.NOTHING


def _left(change: Change) -> list[str]:
    """Return the disk if it is still there; sysfs numbers a later one of the same name anew."""
    name = change.text("disk")
    if name:
        with contextlib.suppress(FileNotFoundError):
            return [name] if (_DISKS / name).stat().st_ino == change.facts["inode"] else []
        return []
    # Killed between the making and the note of its number: new since, and of no size yet.
    before = change.facts.get("before", ())
    assert not isinstance(before, int)
    return [disk for disk in _disks() if disk not in before and _size(disk) == "0"]


def _remove(disk: str) -> None:
    settings = _DISKS / disk
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            write_knob(settings / "reset", 1)
            write_knob(_CONTROL / "hot_remove", disk.removeprefix("zram"))
        except WorkloadError:
            if time.monotonic() > deadline or _in_use(disk):
                raise
            time.sleep(0.05)
        except KernelFeatureMissing:
            if settings.exists():
                raise
            return  # somebody else was quicker
        else:
            return


def _in_use(disk: str) -> bool:
    """Whether something swaps to it or has it mounted: that does not pass by waiting."""
    try:
        os.close(os.open(Path("/dev", disk), os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _size(disk: str) -> str:
    try:
        return read_knob(_DISKS / disk / "disksize")
    except KernelFeatureMissing:
        return ""


def _describe(change: Change) -> str:
    left = _left(change)
    return f"disk {', '.join(left)} is there, was not" if left else ""


ZRAM = ChangeKind("zram", _describe, _undo)
"""A zram disk: facts `before` (disks), then `disk` and `inode` of its sysfs directory."""


def _device(number: str) -> Path:
    device = Path("/dev", f"zram{number}")
    for _ in range(100):
        if device.is_block_device():
            return device
        time.sleep(0.01)  # devtmpfs follows the kernel within milliseconds
    raise WorkloadError(f"zram made no {device}")
