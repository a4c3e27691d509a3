"""The 512-byte headers of tar archives, and the records that extend them. Pure.

Follows POSIX.1-2017 pax ("ustar Interchange Format", "pax Extended Header") and the GNU tar manual
("Basic Tar Format", "Storing Sparse Files"). Readers of these formats disagree on damaged input, so
what is not well-formed is refused rather than guessed at.
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from hyperbox.errors import ImageError

__all__ = [
    "BLOCK",
    "Header",
    "Span",
    "apply_pax",
    "old_gnu_spans",
    "parse_header",
    "parse_pax",
    "pax_spans",
    "pax_xattrs",
    "sparse_numbers",
]

BLOCK = 512
_GNU = b"ustar  \0"
_USTAR = b"ustar\0"
_DIGITS = re.compile(rb"[0-9]{1,20}")
_SECONDS = re.compile(rb"-?[0-9]{1,19}(\.[0-9]{0,30})?")
_OCTAL = re.compile(rb"[0-7]*")
_MOST_SECONDS = 1 << 62
_LARGEST = 1 << 62
_NUMBERS: Mapping[bytes, str] = {b"size": "size", b"uid": "uid", b"gid": "gid"}

Span = tuple[int, int]
"""Offset and length of a piece of a sparse file that has data."""


@dataclass(frozen=True)
class Header:
    """What a header says, numbers decoded, names as bytes.

    `mtime` is in nanoseconds, `size` the bytes that follow in the archive.
    """

    name: bytes
    kind: bytes
    size: int
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


def parse_header(block: bytes) -> Header:
    """Parse one header block, of any of the formats V7, ustar, GNU and pax.

    Raises
    ------
    ImageError
        If its checksum is wrong or a number is none.
    """
    _check_sum(block)
    magic = block[257:265]
    kind = block[156:157].replace(b"\0", b"0")
    name = _text(block[0:100])
    if magic[:6] == _USTAR and block[345] != 0:
        name = _text(block[345:500]) + b"/" + name
    devices = kind in b"34" and magic[:5] == _USTAR[:5]
    return Header(
        name=name,
        kind=b"5" if kind in b"07" and name.endswith(b"/") else kind,  # V7 had no directories
        size=_number(block[124:136], "size"),
        mode=_number(block[100:108], "mode") & 0o7777,
        uid=_number(block[108:116], "uid"),
        gid=_number(block[116:124], "gid"),
        mtime=_number(block[136:148], "time", signed=True) * 1_000_000_000,
        link=_text(block[157:257]),
        device=(_number(block[329:337], "device"), _number(block[337:345], "device"))
        if devices
        else (0, 0),
    )


def old_gnu_spans(block: bytes, *, extension: bool = False) -> tuple[list[Span], bool, int]:
    """Return the spans in an old GNU sparse header or its extension, whether more follow, size."""
    start, count = (0, 21) if extension else (386, 4)
    spans = []
    for place in range(start, start + 24 * count, 24):
        if block[place] == 0:
            break
        offset = _number(block[place : place + 12], "sparse offset")
        spans.append((offset, _number(block[place + 12 : place + 24], "sparse length")))
    more = block[504 if extension else 482] != 0
    return spans, more, 0 if extension else _number(block[483:495], "sparse size")


def parse_pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records of an extended header in their order: values may hold any byte.

    Raises
    ------
    ImageError
        If a record's length is not what it says.
    """
    records, place = [], 0
    while place < len(data):
        space = data.find(b" ", place, place + 21)
        digits = data[place:space] if space >= 0 else b""
        end = place + int(digits) if _DIGITS.fullmatch(digits) else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 2 or data[end - 1 : end] != b"\n" or not equals:
            raise ImageError(f"broken extended header of a tar archive at its byte {place}")
        records.append((key, value))
        place = end
    return records


def apply_pax(header: Header, records: Mapping[bytes, bytes]) -> Header:
    """Return the header with what its extended records replace; empty values replace nothing."""
    changes: dict[str, object] = {}
    for key, value in records.items():
        if not value:
            continue
        if key in _NUMBERS:
            changes[_NUMBERS[key]] = _decimal(value, key)
        elif key == b"path":
            changes["name"] = _no_nul(value)
        elif key == b"linkpath":
            changes["link"] = _no_nul(value)
        elif key == b"mtime":
            changes["mtime"] = _time(value)
    xattrs = pax_xattrs(records)
    return Header(**{**header.__dict__, **changes, "xattrs": xattrs})


def pax_xattrs(records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return extended attributes as star (SCHILY) and libarchive write them; values are bytes."""
    found = {}
    for key, value in records.items():
        if key.startswith(b"LIBARCHIVE.xattr."):
            name = urllib.parse.unquote_to_bytes(key[len(b"LIBARCHIVE.xattr.") :])
            try:
                # libarchive writes no padding
                found[_no_nul(name)] = base64.b64decode(value + b"=" * (-len(value) % 4))
            except binascii.Error as error:
                raise ImageError(f"broken extended attribute {name!r}: {error}") from error
    for key, value in records.items():  # these are exact: they win
        if key.startswith(b"SCHILY.xattr."):
            found[_no_nul(key[len(b"SCHILY.xattr.") :])] = value
    return found


def pax_spans(records: list[tuple[bytes, bytes]]) -> list[Span] | None:
    """Return the map of a sparse file in the formats 0.0 and 0.1; None if there is none here."""
    last = dict(records)
    if b"GNU.sparse.map" in last:
        numbers = [_decimal(one, b"GNU.sparse.map") for one in last[b"GNU.sparse.map"].split(b",")]
    elif b"GNU.sparse.numblocks" in last:
        wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        numbers = [_decimal(value, key) for key, value in records if key in wanted]
    else:
        return None
    if len(numbers) % 2:
        raise ImageError("the map of a sparse file in a tar archive has an odd number of numbers")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def sparse_numbers(records: Mapping[bytes, bytes]) -> tuple[int | None, bytes, bool]:
    """Return the real size, the real name, and whether the map is in the data (format 1.0)."""
    sizes = [records[key] for key in (b"GNU.sparse.realsize", b"GNU.sparse.size") if key in records]
    size = _decimal(sizes[0], b"GNU.sparse.realsize") if sizes else None
    name = _no_nul(records.get(b"GNU.sparse.name", b""))
    version = (records.get(b"GNU.sparse.major", b"0"), records.get(b"GNU.sparse.minor", b"0"))
    if version not in ((b"0", b"0"), (b"0", b"1"), (b"1", b"0")):
        raise ImageError(f"sparse file {name!r} of an unknown format {version!r}")
    return size, name, version == (b"1", b"0")


def _check_sum(block: bytes) -> None:
    stated = _number(block[148:156], "checksum")
    blank = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(blank)
    # Some old programs summed signed characters.
    if stated != unsigned and stated != unsigned - 256 * sum(byte > 127 for byte in blank):
        raise ImageError("a header of the tar archive has a wrong checksum")


def _number(data: bytes, what: str, *, signed: bool = False) -> int:
    """Decode octal digits, or base 256 with the first bit set (GNU)."""
    if data[0] & 0x80:
        bits = 8 * len(data) - 1
        value = int.from_bytes(data) & ((1 << bits) - 1)
        # The second bit is the sign of a number in two's complement.
        value -= (1 << bits) if value >> (bits - 1) else 0
    else:
        digits = data.split(b"\0")[0].strip(b" ")
        if not _OCTAL.fullmatch(digits):
            raise ImageError(f"a {what} in the tar archive is not a number: {digits!r}")
        value = int(digits or b"0", 8)
    if (value < 0 and not signed) or abs(value) > _LARGEST:
        raise ImageError(f"a {what} in the tar archive is out of range: {value}")
    return value


def _decimal(value: bytes, key: bytes) -> int:
    if not _DIGITS.fullmatch(value) or int(value) > _LARGEST:
        raise ImageError(f"{key.decode('ascii', 'replace')} in the tar archive is {value[:40]!r}")
    return int(value)


def _time(value: bytes) -> int:
    if not _SECONDS.fullmatch(value) or abs(int(Decimal(value.decode()))) > _MOST_SECONDS:
        raise ImageError(f"a time in the tar archive is {value[:40]!r}")
    return int((Decimal(value.decode()) * 1_000_000_000).to_integral_value("ROUND_FLOOR"))


def _text(data: bytes) -> bytes:
    return data.split(b"\0", 1)[0]


def _no_nul(value: bytes) -> bytes:
    if b"\0" in value:
        raise ImageError(f"a name in the tar archive has a NUL byte: {value[:80]!r}")
    return value
