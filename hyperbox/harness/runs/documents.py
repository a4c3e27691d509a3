"""The JSON documents of a run directory: sealed when written, read without goodwill.

A document whose meaning is in doubt is refused, not guessed at: keys that stand twice, NaN,
numbers and text that other programs would read differently. The seal is a digest of the
content, so that a changed byte cannot change a verdict.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hyperbox import files
from hyperbox.errors import HarnessError
from hyperbox.harness.runs.schema import check

__all__ = [
    "digest",
    "document_bytes",
    "read_document",
    "read_file",
    "untimely",
    "utc",
    "write_document",
]

_MOST_DIGITS = 300  # any more, and the number fits no float
_LONE = re.compile("[\ud800-\udfff]")
_MAY_BE_LONE = re.compile(r"\\u[dD][89a-fA-F]")
_BEFORE_SEAL = b'\n  "seal": "'  # two blanks: a key of the document itself
_UNSEALED = "0" * 64


def write_document(path: Path, kind: str, document: Mapping[str, Any]) -> None:
    """Write a document, checked against the schema of its kind and sealed."""
    content = document_bytes(document)
    check(kind, json.loads(content), str(path))
    files.write_bytes(path, content)


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a document as it stands in a file: sorted, indented, with its seal.

    The seal is the SHA-256 of this text with 64 zeros in its own place. Text that is no
    Unicode, half of a surrogate pair, is replaced.
    """
    text = json.dumps(
        {**document, "seal": _UNSEALED},
        indent=2,
        sort_keys=True,
        allow_nan=False,
        ensure_ascii=False,
    )
    content = _LONE.sub("\N{REPLACEMENT CHARACTER}", text + "\n").encode()
    place = content.index(_BEFORE_SEAL) + len(_BEFORE_SEAL)
    return content[:place] + digest(content).encode() + content[place + len(_UNSEALED) :]


def digest(data: bytes) -> str:
    """Return the SHA-256 of a file's content as it stands on record."""
    return hashlib.sha256(data).hexdigest()


def read_document(path: Path, kind: str) -> dict[str, Any]:
    """Read a document, checked against the schema of its kind and its seal, which is taken off.

    Raises
    ------
    HarnessError
        If it cannot be read, is damaged, or of another hyperbox; one line says which.
    """
    content = read_file(path)
    try:
        document = _parsed(content)
    except (ValueError, RecursionError) as error:
        told = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise HarnessError(f"{path} is not JSON: {told}") from error
    check(kind, document, str(path))
    found: dict[str, Any] = document
    if found.pop("seal", None) is not None and not _is_whole(content):
        raise HarnessError(f"{path} is damaged: its content is not what was sealed")
    return found


def utc(seconds: float | None = None) -> str:
    """Return a time (default: now) as ISO 8601 in UTC with milliseconds and ``Z``."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def untimely(document: Mapping[str, Any]) -> str:
    """Name the first time that is of the right form, but no such day or hour; "" if none."""
    for key in ("created", "started", "ended"):
        try:
            datetime.fromisoformat(document.get(key) or "2000-01-01")
        except ValueError as error:
            return f"{key} is no valid time: {error}"
    return ""


def read_file(path: Path) -> bytes:
    """Read a whole file; HarnessError if it cannot be, or is a pipe or device."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            kind = os.fstat(handle).st_mode  # before it is read: a pipe may never end
            if not stat.S_ISREG(kind):
                told = "Is a directory" if stat.S_ISDIR(kind) else "it is no regular file"
                raise HarnessError(f"cannot read {path}: {told}")
            with os.fdopen(handle, "rb", closefd=False) as stream:
                return stream.read()
        finally:
            os.close(handle)
    except OSError as error:
        raise HarnessError(f"cannot read {path}: {error.strerror or error}") from error


def _is_whole(content: bytes) -> bool:
    before, mark, rest = content.partition(_BEFORE_SEAL)
    seal, after = rest[: len(_UNSEALED)], rest[len(_UNSEALED) :]
    return digest(before + mark + _UNSEALED.encode() + after).encode() == seal


def _parsed(data: bytes) -> Any:
    text = data.decode()
    document = json.loads(
        text,
        object_pairs_hook=_object,
        parse_float=_float,
        parse_int=_integer,
        parse_constant=_float,
    )
    if _MAY_BE_LONE.search(text) and _LONE.search(json.dumps(document, ensure_ascii=False)):
        raise ValueError("a text in it is no Unicode: half of a surrogate pair")
    return document


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
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
