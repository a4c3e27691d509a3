"""How a guest is stopped at one instruction and finds its next order there.

In the exact lane nothing may reach a guest at a time that the host's load decides. So the
guest itself stops: a store to the register of a pvpanic device lets QEMU pause it (QEMU:
docs/specs/pvpanic.rst). The harness leaves an order in a file that the guest sees as an
nvdimm, and lets it go on. No interrupt is involved.

The file: a magic, a little-endian u32 length and the order; a length of 0 is not an order.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from io import FileIO
from pathlib import Path

from hyperbox.errors import HarnessError

__all__ = ["MAILBOX_SIZE", "Mailbox", "leave_order"]

MAILBOX_SIZE = 2 << 20
"""Bytes; the granularity of an nvdimm."""

# While QEMU stops, its virtual clock may leap to the guest's next timer: a race in the host.
# After that timer (ticks come at 100 Hz or more) the two histories are nearly the same again,
# but not to the nanosecond, so a snapshot whose clock leapt is not one that can be repeated.
_NO_LEAP_NS = 20_000  # the store and a look at the clock take less
_BUSY_NS = 12_000_000
_WAKE_NS = 16_000_000

_HEADER = struct.Struct("<12sI")
_MAGIC = b"hyperboxmail"
_LONGEST = 1 << 16  # an order with its header


class Mailbox:
    """The guest's side.

    Raises
    ------
    FileNotFoundError
        If the machine lacks one of the two devices: it cannot be stopped.
    """

    def __init__(self, system: Path = Path("/sys"), devices: Path = Path("/dev")) -> None:
        self._register = _register(system / "bus/pci/devices")
        self._buffer = mmap.mmap(-1, _LONGEST)  # of whole pages, as direct reads demand
        self._timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]
        self.leapt = False
        """Whether the virtual clock leapt at the last stop."""
        self._memory = self._find(system / "class/block", devices)

    def stop(self) -> bytes:
        """Stop here until the harness goes on; gives the order that it left, or nothing."""
        began = time.monotonic_ns()
        self._register[0] = 1  # PVPANIC_PANICKED
        self.leapt = time.monotonic_ns() - began > _NO_LEAP_NS
        while time.monotonic_ns() < began + _BUSY_NS:
            pass
        os.timerfd_settime_ns(  # type: ignore[attr-defined,unused-ignore]
            self._timer,
            flags=os.TFD_TIMER_ABSTIME,  # type: ignore[attr-defined,unused-ignore]
            initial=began + _WAKE_NS,
        )
        os.read(self._timer, 8)
        return self._read(self._memory) or b""

    def _find(self, blocks: Path, devices: Path) -> int:
        for block in sorted(blocks.glob("pmem*")):
            # Past the page cache, which would remember what an earlier order was.
            handle = os.open(devices / block.name, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
            if self._read(handle) is not None:
                return handle
            os.close(handle)
        raise FileNotFoundError("no nvdimm is a mailbox")

    def _read(self, handle: int) -> bytes | None:
        os.preadv(handle, [self._buffer], 0)
        magic, length = _HEADER.unpack_from(self._buffer)
        if magic != _MAGIC:
            return None
        return self._buffer[_HEADER.size : _HEADER.size + length]


def leave_order(file: FileIO, order: bytes = b"") -> None:
    """Put an order, or none, into the file of a stopped guest's mailbox: the harness's side.

    Raises
    ------
    ValueError
        If the order is too long.
    HarnessError
        If there is no room for it.
    """
    if len(order) > _LONGEST - _HEADER.size:
        raise ValueError(f"an order of {len(order)} bytes does not fit into the mailbox")
    try:
        file.truncate(MAILBOX_SIZE)
        os.pwrite(file.fileno(), _HEADER.pack(_MAGIC, len(order)) + order, 0)
    except OSError as error:
        raise HarnessError(f"cannot leave an order for the guest: {error.strerror}") from error


def _register(devices: Path) -> mmap.mmap:
    for place in sorted(devices.iterdir()):
        names = ((place / "vendor").read_text().strip(), (place / "device").read_text().strip())
        if names == ("0x1b36", "0x0011"):
            if not (place / "driver").exists():  # a driver has enabled it already
                (place / "enable").write_text("1")
            with (place / "resource0").open("r+b", buffering=0) as stream:
                return mmap.mmap(stream.fileno(), 0)
    raise FileNotFoundError("no pvpanic device on the PCI bus")
