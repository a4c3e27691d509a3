"""A BPF ring buffer read where it lies, without a call for each record.

Follows "Design and implementation" of Documentation/bpf/ringbuf.rst (Linux 5.8): a page with the
consumer's position, a page with the producer's, and the data mapped twice in a row, so that no
record is ever cut at the end.
"""

from __future__ import annotations

import errno
import mmap
import struct

from hyperbox.linux.bpf import BpfMap
from hyperbox.linux.refusal import refusal

__all__ = ["BUSY", "DISCARDED", "HEADER", "MappedRing"]

HEADER = 8
"""Bytes before each record, of which the first four are its length and the flags below."""
BUSY = 1 << 31
DISCARDED = 1 << 30
_POSITION = struct.Struct("<Q")


class MappedRing:
    """The consumer's side; records are multiples of 8 bytes with their header."""

    def __init__(self, ring: BpfMap) -> None:
        self._size = ring.entries
        page = mmap.PAGESIZE
        try:
            self._consumer = mmap.mmap(ring.descriptor, page)
            self._data = mmap.mmap(
                ring.descriptor, page + 2 * self._size, prot=mmap.PROT_READ, offset=page
            )
        except OSError as error:
            raise refusal(
                f"cannot map ring {ring.name}", error, missing=(errno.EPERM, errno.EINVAL)
            ) from None

    def waiting(self) -> memoryview:
        """Return the bytes that were produced and not released, headers included.

        A record whose header has BUSY is not written yet; neither are those after it to be used.
        """
        consumed = _POSITION.unpack_from(self._consumer)[0]
        produced = _POSITION.unpack_from(self._data)[0]
        start = mmap.PAGESIZE + consumed % self._size
        return memoryview(self._data)[start : start + produced - consumed]

    def release(self, size: int) -> None:
        """Return `size` bytes from the front to the producer; views of them end there."""
        consumed = _POSITION.unpack_from(self._consumer)[0]
        _POSITION.pack_into(self._consumer, 0, consumed + size)
