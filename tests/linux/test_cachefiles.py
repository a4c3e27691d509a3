"""Messages of cachefiles on demand, as the kernel's document describes them."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import HyperboxError
from hyperbox.linux.cachefiles import CacheMessage, CacheOpcode, open_on_demand, parse_message


def message(number: int, opcode: int, object_id: int, body: bytes) -> bytes:
    return struct.pack("=IIII", number, opcode, 16 + len(body), object_id) + body


def test_open_has_the_object_and_where_its_bytes_go() -> None:
    keys = b"erofs,domain\0" + b"blob"
    body = struct.pack("=IIII", 13, 4, 7, 0) + keys
    expected = CacheMessage(1, CacheOpcode.OPEN, 2, "erofs,domain", "blob", 7)
    assert parse_message(message(1, 0, 2, body)) == expected


def test_read_has_a_range_and_close_has_nothing() -> None:
    body = struct.pack("=QQ", 4096, 8192)
    expected = CacheMessage(3, CacheOpcode.READ, 2, offset=4096, length=8192)
    assert parse_message(message(3, 2, 2, body)) == expected
    assert parse_message(message(4, 1, 2, b"")) == CacheMessage(4, CacheOpcode.CLOSE, 2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        message(1, 3, 2, b""),
        message(1, 2, 2, b"short"),
        message(1, 0, 2, b""),
        message(1, 0, 2, struct.pack("=IIII", 99, 1, 7, 0)),
        message(1, 1, 2, b"")[:-1],
    ],
)
def test_other_shapes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="cachefiles"):
        parse_message(data)


@given(st.binary(max_size=80))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_message(data)


@pytest.mark.root
def test_kernel_without_it_says_so_in_one_line(tmp_path: Path) -> None:
    if Path("/dev/cachefiles").exists():
        pytest.skip("this machine has cachefiles, which others may use")
    with pytest.raises(HyperboxError, match="cachefiles"):
        open_on_demand(tmp_path, "test")
