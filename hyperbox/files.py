"""The one door for writes: a file is whole or absent, never half-written.

Each write goes to a temporary file in the same directory, is flushed to disk and
renamed over the target (rename(2) is atomic within a file system).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hyperbox.errors import HarnessError

__all__ = [
    "atomic_writer",
    "explained",
    "locked",
    "sha256_file",
    "write_bytes",
    "write_json",
    "write_text",
]


@contextlib.contextmanager
def atomic_writer(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Return a binary file that replaces `path` when the block ends without an error.

    Raises
    ------
    HarnessError
        If the disk is full or the directory is not writable.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
        temporary = None
        _sync_directory(path.parent)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the file at `path` by `data`, atomically."""
    with atomic_writer(path, mode) as stream:
        stream.write(data)


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace the file at `path` by `text` in UTF-8, atomically."""
    write_bytes(path, text.encode(), mode)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys and a final newline, atomically.

    NaN and infinities are refused (ValueError): JSON has no such numbers.
    """
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive flock(2) on `path` (created if absent) for the block.

    The kernel drops the lock when the process dies, however it dies.

    Raises
    ------
    HarnessError
        If the file cannot be made or locked.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.open("a")), fcntl.LOCK_EX)
        except OSError as error:
            raise explained(error, path) from error
        yield


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explained(error: OSError, path: Path) -> HarnessError:
    """Return the system's refusal to write at `path` as one line, with what mends it."""
    hint = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = f"free some space below {path.parent} or choose another directory"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = f"make {path.parent} writable or choose another directory"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        hint = "a file stands where a directory should, or the other way: move it or choose another"
    return HarnessError(f"cannot write {path}: {error.strerror or error}", hint=hint)
