"""zram: a compressed disk in memory. Follows Documentation/admin-guide/blockdev/zram.rst."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.linux.knob import read_knob, write_knob
from hyperbox.linux.modules import load_module

__all__ = [
    "ZramMemory",
    "choose_algorithm",
    "parse_algorithms",
    "parse_mm_stat",
    "zram_device",
    "zram_memory",
]

_CONTROL = Path("/sys/class/zram-control")


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
    """Give the first algorithm of `wanted` that is available.

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
    return parse_mm_stat(read_knob(Path("/sys/class/block", device.name, "mm_stat")))


@contextlib.contextmanager
def zram_device(*, size: int, algorithms: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Give ``/dev/zramN`` of `size` bytes and the algorithm taken, the first that is there.

    Raises
    ------
    KernelFeatureMissing
        If this kernel has no zram or none of the algorithms.
    """
    with contextlib.ExitStack() as stack:
        load_module("zram", "num_devices=0")
        number = read_knob(_CONTROL / "hot_add")
        stack.callback(write_knob, _CONTROL / "hot_remove", number)
        settings = Path("/sys/class/block", f"zram{number}")
        offered = parse_algorithms(read_knob(settings / "comp_algorithm"))
        algorithm = choose_algorithm(algorithms, offered)
        write_knob(settings / "comp_algorithm", algorithm)
        write_knob(settings / "disksize", size)
        stack.callback(write_knob, settings / "reset", 1)
        yield _device(number), algorithm


def _device(number: str) -> Path:
    device = Path("/dev", f"zram{number}")
    for _ in range(100):
        if device.is_block_device():
            return device
        time.sleep(0.01)  # devtmpfs follows the kernel within milliseconds
    raise WorkloadError(f"zram made no {device}")
