"""What others wrote is read whole or refused in one line, and never hangs or eats the memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ConfigError, HarnessError, HyperboxError
from hyperbox.foreign import (
    parse_json,
    parse_toml,
    read_bytes,
    read_json,
    read_text,
    read_toml,
)

READERS = (read_bytes, read_text, read_json, read_toml)


@pytest.mark.parametrize("read", READERS)
def test_what_is_not_a_regular_file_is_refused_at_once(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for path, said in (
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "link", "not a regular file"),
        (Path(os.devnull), "not a regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "loop", "Too many levels"),
        (tmp_path / "a\0b", "null byte"),
        (tmp_path / ("long" * 100), "File name too long"),
    ):
        with pytest.raises(HyperboxError, match=said) as caught:
            read(path)
        assert str(tmp_path) in caught.value.message or "/dev/null" in caught.value.message
        assert "\n" not in caught.value.message
        assert "\0" not in caught.value.message


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    (tmp_path / "link").symlink_to("file")
    assert read_json(tmp_path / "link") == {}


@pytest.mark.parametrize("read", READERS)
def test_a_huge_file_is_refused_unread(read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "huge"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(HyperboxError, match=r"huge: it has more than \d+ bytes"):
        read(path)


def test_the_largest_size_is_the_callers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bytes(path, most=5) == b"12345"
    with pytest.raises(HarnessError, match="more than 4 bytes"):
        read_bytes(path, most=4)
    with pytest.raises(ConfigError, match="more than 4 bytes"):
        read_text(path, most=4, refusal=ConfigError)


@pytest.mark.parametrize("read", [read_text, read_json, read_toml])
def test_other_encodings_are_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(HyperboxError, match="not UTF-8 text: byte 7"):
        read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice"),
        ("1e999", "NaN or infinite"),
        ("[NaN]", "NaN or infinite"),
        ("[-Infinity]", "NaN or infinite"),
        ("9" * 5000, "a number has 5000 digits"),
        ("[" * 101 + "]" * 101, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("\ufeff{}", "BOM"),
        ("", "Expecting value"),
    ],
)
def test_doubtful_json_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(text)
    (tmp_path / "file").write_text(text)
    with pytest.raises(HarnessError, match=f"file is not JSON: .*{said}"):
        read_json(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a = {'9' * 5000}", "digits"),
        (f"a = {'[' * 100_000}", "nested too deeply"),
        (f"{'a.' * 5000}b = 1", "nested too deeply"),
        (f"[{'a.' * 5000}b]", "nested too deeply"),
        (f"a = [{1 << 63}]", "does not fit 64 bits"),
        ("a = 1\na = 2", "overwrite a value"),
        ("a = \x01", "line 1"),
    ],
)
def test_doubtful_toml_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        parse_toml(text)
    (tmp_path / "file").write_text(text)
    with pytest.raises(ConfigError, match=f"file: broken TOML: .*{said}"):
        read_toml(tmp_path / "file")


def test_many_keys_with_one_twice_take_no_longer_than_reading_them() -> None:
    keys = ",".join(f'"{number}":0' for number in range(200_000))
    with pytest.raises(ValueError, match="the key '199999' stands twice"):
        parse_json("{" + keys + ',"199999":0}')


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_sound_json_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    text = json.dumps(value)
    try:
        expected = json.loads(text, parse_constant=pytest.fail)
    except pytest.fail.Exception:
        with pytest.raises(ValueError, match="infinite"):
            parse_json(text)
    else:
        assert parse_json(text) == expected


def test_limit_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"small")
    assert read_bytes(path, most=1 << 50) == b"small"
