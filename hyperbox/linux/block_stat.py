"""What a block device has done. Follows Documentation/block/stat.rst (fields since 2.6.9)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyperbox.linux.knob import read_knob

__all__ = ["BlockStat", "block_stat", "parse_block_stat"]

SECTOR = 512


@dataclass(frozen=True)
class BlockStat:
    """Counters since the device was made: requests, and bytes moved."""

    reads: int
    read_bytes: int
    writes: int
    written_bytes: int


def parse_block_stat(text: str) -> BlockStat:
    """Parse ``/sys/block/*/stat``; ValueError if there are fewer than its first 11 fields."""
    fields = [int(word) for word in text.split()]
    if len(fields) < 11:
        raise ValueError(f"{len(fields)} fields in a block device's stat: {text!r}")
    return BlockStat(fields[0], fields[2] * SECTOR, fields[4], fields[6] * SECTOR)


def block_stat(device: Path) -> BlockStat:
    """Read the counters of a whole disk, given as ``/dev/NAME``."""
    return parse_block_stat(read_knob(Path("/sys/class/block", device.name, "stat")))
