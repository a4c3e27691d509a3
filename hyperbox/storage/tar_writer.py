"""Members of tar archives, for images that are made here. Pure.

Writes ustar headers, behind pax records where a name or a number does not fit or there are
extended attributes (POSIX.1-2017 pax).
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["archive_end", "tar_member"]

_BLOCK = 512
_LONGEST = 100


def tar_member(
    name: bytes,
    data: bytes = b"",
    *,
    kind: bytes = b"0",
    link: bytes = b"",
    mode: int = 0o644,
    mtime: int = 0,
    xattrs: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """Return a member with its header; `mtime` is in whole seconds, the owner is root."""
    records = {b"SCHILY.xattr." + key: value for key, value in (xattrs or {}).items()}
    if len(name) > _LONGEST:
        records[b"path"] = name
    if len(link) > _LONGEST:
        records[b"linkpath"] = link
    extended = b"".join(_record(key, value) for key, value in records.items())
    before = _member(b"pax", extended, b"x", b"", 0o644, 0) if extended else b""
    return before + _member(name[:_LONGEST], data, kind, link[:_LONGEST], mode, mtime)


def archive_end() -> bytes:
    """Return what ends an archive."""
    return bytes(2 * _BLOCK)


def _member(name: bytes, data: bytes, kind: bytes, link: bytes, mode: int, mtime: int) -> bytes:
    fields = (
        name.ljust(_LONGEST, b"\0"),
        b"%07o\0" % mode + b"0000000\0" * 2,
        b"%011o\0" % len(data) + b"%011o\0" % mtime,
        b" " * 8 + kind,
        link.ljust(_LONGEST, b"\0") + b"ustar\x0000",
    )
    header = b"".join(fields).ljust(_BLOCK, b"\0")
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    return header + data + bytes(-len(data) % _BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(record := b"%d %s=%s\n" % (length, key, value)) != length:
        length = len(record)
    return record
