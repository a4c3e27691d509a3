"""The JSON documents of a run directory: sealed when written, read without trust.

A document whose meaning is in doubt is refused, not guessed at: keys that stand twice, NaN,
numbers and text that other programs would read differently. The seal is a digest of the
content, so that a changed byte cannot change a verdict.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hyperbox import files
from hyperbox.errors import HarnessError
from hyperbox.foreign import parse_json, read_bytes
from hyperbox.harness.runs.schema import check

__all__ = [
    "digest",
    "document_bytes",
    "read_document",
    "untimely",
    "utc",
    "write_document",
]

_LONE = re.compile("[\ud800-\udfff]")
_MAY_BE_LONE = re.compile(r"\\u[dD][89a-fA-F]")
_BEFORE_SEAL = b'\n  "seal": "'  # two blanks: a key of the document itself
_UNSEALED = "0" * 64


def write_document(path: Path, kind: str, document: Mapping[str, Any]) -> None:
    """Write a document, sealed; HarnessError if `read_document` would refuse it."""
    content = document_bytes(document)
    try:
        check(kind, _parsed(content), str(path))
    except ValueError as error:
        raise HarnessError(f"{path} would not be readable: {error}") from error
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
    content = read_bytes(path)
    try:
        document = _parsed(content)
    except ValueError as error:
        raise HarnessError(f"{path} is not JSON: {error}") from error
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
            return f"{key} is not a valid time: {error}"
    return ""


def _is_whole(content: bytes) -> bool:
    before, mark, rest = content.partition(_BEFORE_SEAL)
    seal, after = rest[: len(_UNSEALED)], rest[len(_UNSEALED) :]
    return digest(before + mark + _UNSEALED.encode() + after).encode() == seal


def _parsed(data: bytes) -> Any:
    text = data.decode()
    document = parse_json(text)
    if _MAY_BE_LONE.search(text) and _LONE.search(json.dumps(document, ensure_ascii=False)):
        raise ValueError("a text in it is not Unicode: half of a surrogate pair")
    return document
