"""Files that others wrote, and the JSON and TOML in them: read without trust.

A file is regular, of bounded size and UTF-8; a document means one thing only. What is not so is
refused in one line that names the file, before it can hang the reader or eat its memory.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from hyperbox.errors import ConfigError, HarnessError

__all__ = [
    "Refusal",
    "open_regular",
    "parse_json",
    "parse_toml",
    "read_bytes",
    "read_json",
    "read_text",
    "read_toml",
]

Refusal = type[ConfigError] | type[HarnessError]
"""What a file is refused with: `ConfigError` for the user's input, `HarnessError` for records."""

_MOST_BYTES = 256 << 20  # of any file: serial logs and samples are below it
_PIECE = 1 << 20
_MOST_TEXT = 16 << 20  # of a document: a plan of ten thousand cells is below it
_MOST_SETTINGS = 1 << 20  # of a TOML file: people write them
_MOST_DIGITS = 300  # any more, and the number fits no float
_MOST_LEVELS = 100  # of lists and tables in each other: far below where Python's stack ends


@contextlib.contextmanager
def open_regular(path: Path, flags: int = 0) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file to read; yield its descriptor and what fstat(2) says of it.

    Opening waits for no writer of a FIFO and makes no terminal the controlling one.

    Parameters
    ----------
    flags
        Flags of open(2) beside the ones that are always set, such as ``O_NOFOLLOW``.

    Raises
    ------
    OSError
        If it cannot be opened.
    ValueError
        If it is something else than a regular file; the text says so.
    """
    always = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    handle = os.open(path, always | flags)
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            kind = "Is a directory" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
            raise ValueError(kind)
        yield handle, facts
    finally:
        os.close(handle)


def read_bytes(path: Path, *, most: int = _MOST_BYTES, refusal: Refusal = HarnessError) -> bytes:
    """Read a whole file.

    Parameters
    ----------
    most
        Largest size in bytes; one that is larger is refused, also if it grows meanwhile.
    refusal
        Class of the error.

    Raises
    ------
    ConfigError, HarnessError
        If it cannot be read, is larger, or is a pipe, a device or a directory.
    """
    try:
        with open_regular(path) as (handle, _), os.fdopen(handle, "rb", closefd=False) as stream:
            data = _at_most(stream, most + 1)
    except OSError as error:
        raise refusal(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the path is one too
        raise refusal(f"cannot read {str(path)!r}: {error}") from error
    if len(data) > most:
        raise refusal(f"cannot read {path}: it has more than {most} bytes")
    return data


def _at_most(stream: IO[bytes], count: int) -> bytes:
    """Read so many bytes at most; asked for at once, they would be memory that is not needed."""
    data = bytearray()
    while piece := stream.read(min(_PIECE, count - len(data))):
        data += piece
    return bytes(data)


def read_text(path: Path, *, most: int = _MOST_TEXT, refusal: Refusal = HarnessError) -> str:
    """Read a whole text file in UTF-8; as `read_bytes`."""
    try:
        return read_bytes(path, most=most, refusal=refusal).decode()
    except UnicodeDecodeError as error:
        raise refusal(f"{path}: not UTF-8 text: byte {error.start}") from error


def read_json(path: Path, *, most: int = _MOST_TEXT, refusal: Refusal = HarnessError) -> Any:
    """Read a JSON file, as `read_bytes` and `parse_json`, whose fault names the file."""
    text = read_text(path, most=most, refusal=refusal)
    try:
        return parse_json(text)
    except ValueError as error:
        raise refusal(f"{path} is not JSON: {error}") from error


def read_toml(
    path: Path, *, most: int = _MOST_SETTINGS, refusal: Refusal = ConfigError
) -> dict[str, Any]:
    """Read a TOML file, as `read_bytes` and `parse_toml`, whose fault names the file."""
    text = read_text(path, most=most, refusal=refusal)
    try:
        return parse_toml(text)
    except ValueError as error:
        raise refusal(f"{path}: broken TOML: {error}", hint="correct that line") from error


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; pure.

    Raises
    ------
    ValueError
        If it is not JSON, or JSON that programs read differently: keys that stand twice in an
        object, numbers that fit no float, nesting beyond 100 levels.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=_float,
            parse_int=_integer,
            parse_constant=_float,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    for _ in _values(value):
        pass
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text; pure.

    Raises
    ------
    ValueError
        If it is not TOML, has an integer beyond 64 bits, or nesting beyond 100 levels.
    """
    import tomllib  # noqa: PLC0415 - what is measured in guests reads none

    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    for value in _values(table):
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:  # TOML 1.0: an error
            raise ValueError("a whole number does not fit 64 bits")
    return table


def _values(value: Any) -> Iterator[Any]:
    """Return all values, level by level; showing too many levels would end Python's stack."""
    level = [value]
    for _ in range(_MOST_LEVELS):
        yield from level
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        unseen = dict.fromkeys(found, True)
        twice = next(name for name, _ in pairs if not unseen.pop(name, False))
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is NaN or infinite")
    return value


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)
