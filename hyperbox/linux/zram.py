"""Compressed memory as a block device; follows ``Documentation/admin-guide/blockdev/zram.rst``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from hyperbox.errors import KernelFeatureMissing
from hyperbox.linux import module

__all__ = ["ZramDevice", "algorithms", "device"]

_CONTROL = Path("/sys/class/zram-control")


class ZramDevice:
    """A zram device, given by its number."""

    def __init__(self, number: int) -> None:
        self.path = Path(f"/dev/zram{number}")
        self._directory = Path(f"/sys/block/zram{number}")

    def memory_used(self) -> int:
        """Give the bytes of memory that the device takes, overhead included."""
        return int((self._directory / "mm_stat").read_text().split()[2])

    def configure(self, *, size: int, preferred: Sequence[str]) -> str:
        """Set the capacity in bytes and the first algorithm that the kernel has; give it."""
        offered = algorithms((self._directory / "comp_algorithm").read_text())
        chosen = next((name for name in preferred if name in offered), None)
        if chosen is None:
            raise KernelFeatureMissing(f"zram offers {' '.join(offered)}, none of {preferred}")
        (self._directory / "comp_algorithm").write_text(chosen)
        (self._directory / "disksize").write_text(str(size))
        return chosen

    def reset(self) -> None:
        """Free the device's memory."""
        (self._directory / "reset").write_text("1")


def algorithms(text: str) -> tuple[str, ...]:
    """Parse ``comp_algorithm``: names in a row, the chosen one in brackets."""
    return tuple(word.strip("[]") for word in text.split())


@contextlib.contextmanager
def device(
    *, size: int, preferred: Sequence[str] = ("lz4", "lzo-rle", "lzo")
) -> Iterator[ZramDevice]:
    """Make a zram device of `size` bytes for the block.

    Raises
    ------
    KernelFeatureMissing
        If the kernel has no zram.
    """
    module.load("zram")
    number = int((_CONTROL / "hot_add").read_text())
    made = ZramDevice(number)
    try:
        made.configure(size=size, preferred=preferred)
        yield made
    finally:
        made.reset()
        (_CONTROL / "hot_remove").write_text(str(number))
