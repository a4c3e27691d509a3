"""Tar archives, read once from front to end.

The standard library's tarfile is not used: of a pax 1.0 sparse file whose ``size`` record follows
``realsize`` it returns zeros and loses the next member without an error (measured, 3.11.7).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from hyperbox.errors import ImageError
from hyperbox.storage.limits import Limits
from hyperbox.storage.tar_header import (
    BLOCK,
    Header,
    Span,
    apply_pax,
    old_gnu_spans,
    parse_header,
    parse_pax,
    pax_spans,
    sparse_numbers,
)

__all__ = ["Readable", "TarEntry", "TarStream"]

_ZERO = bytes(BLOCK)
_PIECE = 1 << 18
_REGULAR = b"07"
_SPARSE = b"S"
_KNOWN = b"01234567S"
_SKIPPED = b"DV"  # GNU: the list of an incremental directory, the label of a volume


class Readable(Protocol):
    """What a tar archive is read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; nothing at the end."""
        ...


@dataclass(frozen=True)
class TarEntry:
    """A member of an archive.

    `header.size` is the size that the file will have; `spans` are where it has data, in order
    and apart from each other.
    """

    header: Header
    spans: tuple[Span, ...] = ()


class TarStream:
    """The members of an archive; each one's data is read before the next one is asked for.

    Parameters
    ----------
    stream
        The archive, decompressed.
    limits
        Most entries, sizes and such; more is refused.
    """

    def __init__(self, stream: Readable, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._hash = hashlib.sha256()
        self._global: dict[bytes, bytes] = {}
        self._left = 0  # bytes of the current member, padding included
        self._padding = 0
        self._spans: tuple[Span, ...] = ()
        self._total = 0

    def __iter__(self) -> Iterator[TarEntry]:
        """Yield the members in the archive's order.

        Raises
        ------
        ImageError
            If the archive is broken, cut short, or larger than the limits.
        """
        for number, entry in enumerate(iter(self._next, None)):
            if number >= self._limits.entries:
                raise ImageError(
                    f"the layer has more than {self._limits.entries} entries",
                    hint="a larger limit on entries admits it, if you trust its source",
                )
            yield entry

    def data(self) -> Iterator[tuple[int, bytes]]:
        """Yield the current member's data in pieces: offset in the file, bytes."""
        for offset, length in self._spans:
            done = 0
            while done < length:
                piece = self._read(min(_PIECE, length - done))
                self._left -= len(piece)
                yield offset + done, piece
                done += len(piece)
        self._spans = ()

    def finish(self) -> str:
        """Read what follows the archive; return the digest of all of it, ``sha256:...``."""
        while data := self._stream.read(_PIECE):
            self._hash.update(data)
        return f"sha256:{self._hash.hexdigest()}"

    def _next(self) -> TarEntry | None:
        self._skip(self._left + self._padding)
        local: list[tuple[bytes, bytes]] = []
        long: dict[str, bytes] = {}
        while (block := self._header_block()) is not None:
            header = parse_header(block)
            if header.kind in b"xX":
                local = parse_pax(self._extended_data(header))
            elif header.kind == b"g":
                self._global.update(parse_pax(self._extended_data(header)))
            elif header.kind in b"LK":
                name = "name" if header.kind == b"L" else "link"
                long[name] = self._extended_data(header).split(b"\0", 1)[0]
            elif header.kind in _SKIPPED:
                self._skip(header.size + -header.size % BLOCK)
            elif header.kind not in _KNOWN:
                raise ImageError(f"{header.name!r} in the tar archive has the type {header.kind!r}")
            else:
                if long:
                    header = replace(header, **long)  # type: ignore[arg-type]
                return self._entry(header, block, local)
        if local or long:
            raise ImageError("the tar archive ends after an extended header")
        return None

    def _entry(self, header: Header, block: bytes, local: list[tuple[bytes, bytes]]) -> TarEntry:
        records: Mapping[bytes, bytes] = {**self._global, **dict(local)}
        if records:
            header = apply_pax(header, records)
        if header.size and header.kind not in b"07S":
            header = replace(header, size=0)  # links and devices have no data, whatever they say
        self._left, self._padding = header.size, -header.size % BLOCK
        if header.kind == _SPARSE:
            spans, size = self._old_gnu_map(block)
            header = replace(header, kind=b"0", size=size)
        else:
            found = pax_spans(local) if header.kind in _REGULAR else None
            stated, name, in_data = sparse_numbers(records)
            if found is None and not (in_data and header.kind in _REGULAR):
                spans = [(0, header.size)] if header.size else []
                return self._with(header, spans)
            if in_data:
                found = self._map_in_data()
            spans = found or []
            real = header.size if stated is None else stated
            header = replace(header, size=real, name=name or header.name)
        return self._with(header, self._checked(spans, header))

    def _with(self, header: Header, spans: list[Span]) -> TarEntry:
        if len(header.name) > self._limits.path_bytes or len(header.link) > self._limits.path_bytes:
            raise ImageError(f"a name in the layer is longer than {self._limits.path_bytes} bytes")
        self._total += header.size
        if self._total > self._limits.total_bytes:
            raise ImageError(
                f"the files of the layer have more than {self._limits.total_bytes} bytes",
                hint="a larger limit on their size admits it, if you trust its source",
            )
        self._spans = tuple(spans)
        return TarEntry(header, self._spans)

    def _checked(self, spans: list[Span], header: Header) -> list[Span]:
        """Return the spans that have data; they must be in order and add up to what is stored."""
        end = 0
        for offset, length in spans:
            if offset < end or offset + length > header.size:
                raise ImageError(f"the map of the sparse file {header.name!r} is broken")
            end = offset + length
        if sum(length for _, length in spans) != self._left:
            raise ImageError(f"the map of the sparse file {header.name!r} does not fit its data")
        return [span for span in spans if span[1]]

    def _old_gnu_map(self, block: bytes) -> tuple[list[Span], int]:
        spans, more, size = old_gnu_spans(block)
        while more:
            further, more, _ = old_gnu_spans(self._read(BLOCK), extension=True)
            spans += further
            self._bound_map(len(spans))
        return spans, size

    def _map_in_data(self) -> list[Span]:
        """Read the map of format 1.0: decimal numbers, a line each, padded to a block."""
        numbers: list[int] = []
        rest, wanted = b"", 1
        while len(numbers) < wanted:
            if self._left < BLOCK:
                raise ImageError("the map of a sparse file in the tar archive is cut short")
            self._left -= BLOCK
            *lines, rest = (rest + self._read(BLOCK)).split(b"\n")
            for line in lines[: wanted - len(numbers)] if numbers else lines:
                if not line.isdigit() or len(line) > 20:
                    raise ImageError(f"the map of a sparse file has {line[:40]!r} for a number")
                numbers.append(int(line))
                wanted = 1 + 2 * numbers[0]
                self._bound_map(numbers[0])
                if len(numbers) == wanted:
                    break
            if len(rest) > 20 and len(numbers) < wanted:
                raise ImageError("the map of a sparse file in the tar archive is broken")
        return list(zip(numbers[1::2], numbers[2::2], strict=True))

    def _bound_map(self, spans: int) -> None:
        if spans > self._limits.sparse_spans:
            raise ImageError(f"a sparse file in the layer has more than {spans - 1} pieces")

    def _extended_data(self, header: Header) -> bytes:
        if header.size > self._limits.header_bytes:
            raise ImageError(
                f"an extended header of the tar archive has {header.size} bytes, more than "
                f"{self._limits.header_bytes}"
            )
        data = self._read(header.size)
        self._skip(-header.size % BLOCK)
        return data

    def _header_block(self) -> bytes | None:
        """Return the next block; None at the end, which is two blocks of zeros or no more bytes."""
        block = self._some(BLOCK)
        if not block:
            return None
        if block != _ZERO:
            return block if len(block) == BLOCK else self._cut()
        following = self._some(BLOCK)
        if following in (b"", _ZERO):
            return None
        raise ImageError("the tar archive goes on after a block of zeros")

    def _read(self, size: int) -> bytes:
        data = self._some(size)
        return data if len(data) == size else self._cut()

    def _cut(self) -> bytes:
        raise ImageError("the tar archive is cut short")

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._read(min(_PIECE, size)))
        self._left = self._padding = 0

    def _some(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end only."""
        data = self._stream.read(size)
        while 0 < len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                break
            data += more
        self._hash.update(data)
        return data
