"""Swap areas: mkswap(8), swapon(2), swapoff(2) and ``/proc/swaps``.

`swapping` goes through the journal; `swap_on` and `swap_off` are the bare calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.journal import ChangeKind, UndoOutcome, undoing
from hyperbox.linux.mounts import unescape
from hyperbox.linux.refusal import refusal
from hyperbox.processes import require, run
from hyperbox.records import Change

__all__ = [
    "HIGHEST_PRIORITY",
    "SWAP",
    "SwapArea",
    "called_here",
    "parse_swaps",
    "swap_areas",
    "swap_off",
    "swap_on",
    "swapping",
]

_PREFER = 0x8000  # SWAP_FLAG_PREFER of swapon(2); the priority is in the lower 15 bits
HIGHEST_PRIORITY = 0x7FFF
"""Of a swap area; the kernel fills areas of the same priority in turn (swapon(2))."""
_UUID = slice(1036, 1052)  # sws_uuid of union swap_header, include/linux/swap.h
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class SwapArea:
    """One line of ``/proc/swaps``; sizes in bytes, a higher priority is filled first."""

    path: str
    kind: str
    size: int
    used: int
    priority: int


def parse_swaps(text: str) -> tuple[SwapArea, ...]:
    """Parse ``/proc/swaps``; ValueError names a line of unknown shape."""
    return tuple(_area(line) for line in text.split("\n")[1:] if line)


def swap_areas() -> tuple[SwapArea, ...]:
    """Return the active swap areas; none if the kernel has no swapping.

    A device that was named in a mount namespace which has ended, as a service's is, reads
    ``/zram0`` instead of ``/dev/zram0``: it is given as it is called here.
    """
    try:
        # Only "\n" ends a line: names may hold everything else that Python takes for an end.
        areas = parse_swaps(Path("/proc/swaps").read_bytes().decode(errors="surrogateescape"))
    except FileNotFoundError:
        return ()
    return tuple(replace(area, path=called_here(area)) for area in areas)


def called_here(area: SwapArea, devices: Path = Path("/dev")) -> str:
    """Return the path of a swap area in this mount namespace; its own name, if it is not here.

    A device whose node has been removed is swapped to all the same, and keeps its name.
    """
    if area.kind != "partition" or Path(area.path).is_block_device():
        return area.path
    name = area.path.removesuffix(" (deleted)")
    below = name.lstrip("/")
    for candidate in (devices / below, devices / Path(below).name):
        if candidate.is_block_device():
            return str(candidate)
    return name


def swap_on(device: Path, priority: int | None = None) -> None:
    """Begin to swap to a device that holds a swap signature.

    `priority` is 0 to 32767; None takes the kernel's next lower negative one.
    """
    flags = 0
    if priority is not None:
        if not 0 <= priority <= HIGHEST_PRIORITY:
            raise ValueError(f"priority {priority} is outside 0 ... {HIGHEST_PRIORITY}")
        flags = _PREFER | priority
    while _libc.swapon(ctypes.c_char_p(os.fsencode(device)), ctypes.c_int(flags)) != 0:
        if ctypes.get_errno() != errno.EINTR:
            raise refusal(f"cannot swap to {device}", ctypes.get_errno())


def swap_off(device: Path) -> None:
    """Bring everything back from a device and stop swapping to it.

    It goes on after a signal, unless the signal's handler raises: what was brought back until
    then is in memory, the rest still on the device, and it is still swapped to.
    """
    while _libc.swapoff(ctypes.c_char_p(os.fsencode(device))) != 0:
        if ctypes.get_errno() != errno.EINTR:
            raise refusal(f"cannot stop swapping to {device}", ctypes.get_errno())


@contextlib.contextmanager
def swapping(device: Path, priority: int | None = None) -> Iterator[None]:
    """Format `device` (its content is lost) and swap to it for the block. Journalled."""
    device = device.resolve()
    uuid = Path("/proc/sys/kernel/random/uuid").read_text().strip()
    run([require("mkswap", "util-linux"), "--uuid", uuid, device], timeout=60)
    with undoing(SWAP, device, uuid=uuid):
        swap_on(device, priority)
        yield


def _undo(change: Change) -> UndoOutcome:
    outcome = _look(change)
    if outcome is UndoOutcome.UNDONE:
        swap_off(Path(change.subject))
    return outcome


def _look(change: Change) -> UndoOutcome:
    """Say what is to be done."""
    if all(area.path != change.subject for area in swap_areas()):
        return UndoOutcome.NOTHING
    if _uuid(Path(change.subject)) != change.text("uuid").replace("-", ""):
        return UndoOutcome.FOREIGN  # made again by somebody under the same name
    return UndoOutcome.UNDONE


def _describe(change: Change) -> str:
    used = _look(change) is UndoOutcome.UNDONE
    return f"{change.subject} is used for swap, was not" if used else ""


SWAP = ChangeKind("swap", _describe, _undo)
"""A swap area: fact `uuid` of its signature."""


def _uuid(device: Path) -> str:
    try:
        with device.open("rb", buffering=0) as stream:
            return stream.read(4096)[_UUID].hex()
    except FileNotFoundError as error:
        raise WorkloadError(
            f"{device} is still swapped to, but its device node has been removed",
            hint=f"mknod {device} b $(tr : ' ' </sys/class/block/{device.name}/dev) makes it again",
        ) from error
    except OSError as error:
        raise refusal(f"cannot read {device}", error) from error


def _area(line: str) -> SwapArea:
    try:
        path, kind, size, used, priority = re.split(r"[ \t]+", line)
        return SwapArea(unescape(path), kind, int(size) << 10, int(used) << 10, int(priority))
    except ValueError:
        raise ValueError(f"not a line of /proc/swaps: {line!r}") from None
