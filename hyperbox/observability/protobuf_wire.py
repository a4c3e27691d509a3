"""Protocol Buffers' wire format: what OTLP's encoder, and readers of its answers, need of it.

Follows "Encoding" of the Protocol Buffers documentation. Only wire types 0, 1, 2 and 5 exist in
proto3; groups (3 and 4) are refused. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["MalformedMessage", "delimited", "fields", "signed", "tag", "text", "varint"]

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10  # bytes
_SMALL = tuple(bytes((number,)) for number in range(128))


class MalformedMessage(ValueError):
    """Bytes that are not a message of Protocol Buffers."""


def varint(number: int) -> bytes:
    """Return a number as base-128 varint; a negative one takes ten bytes, as int64 does."""
    if 0 <= number < 128:
        return _SMALL[number]
    rest = number & 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def tag(field: int, wire_type: int) -> bytes:
    """Return what stands before a field's value."""
    return varint(field << 3 | wire_type)


def delimited(field: int, content: bytes) -> bytes:
    """Return a field of bytes, a string or a message."""
    return varint(field << 3 | _DELIMITED) + varint(len(content)) + content


def text(content: bytes) -> str:
    """Return a string field's text; what is not UTF-8 costs only itself."""
    return content.decode("utf-8", "replace")


def signed(number: int) -> int:
    """Return the int64 or int32 that a varint stands for."""
    return number - (1 << 64) if number >= 1 << 63 else number


def fields(message: bytes | memoryview) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field: numbers as unsigned integers, all else as bytes.

    Fields that the caller does not know are for it to pass over.

    Raises
    ------
    MalformedMessage
        If the bytes end within a field, or are none.
    """
    data = bytes(message)
    place, end = 0, len(data)
    while place < end:
        key, place = _read_varint(data, place)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise MalformedMessage("field number 0")
        if wire_type == _VARINT:
            value, place = _read_varint(data, place)
            yield number, value
            continue
        if wire_type == _DELIMITED:
            length, place = _read_varint(data, place)
        elif wire_type in (_FIXED64, _FIXED32):
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise MalformedMessage(f"wire type {wire_type}")
        if length > end - place:
            raise MalformedMessage("the message ends within a field")
        content = data[place : place + length]
        place += length
        yield number, content if wire_type == _DELIMITED else int.from_bytes(content, "little")


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    first = data[place] if place < len(data) else 128
    if first < 128:
        return first, place + 1
    number = 0
    for index, byte in enumerate(data[place : place + _LONGEST_VARINT]):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number & 0xFFFF_FFFF_FFFF_FFFF, place + index + 1
    raise MalformedMessage("a varint has no end")
