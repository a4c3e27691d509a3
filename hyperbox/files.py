"""The one door for writes: a file is whole or absent, never half-written.

Each write goes to a temporary file in the same directory, is flushed to disk and
renamed over the target (rename(2) is atomic within a file system). A link keeps pointing
where it points, and what is not a regular file (a device, a pipe) is written into, as by a shell.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from hyperbox.errors import HarnessError
from hyperbox.foreign import read_json

__all__ = [
    "atomic_writer",
    "explained",
    "has_sha256",
    "locked",
    "note_sha256",
    "read_sealed",
    "replace_file",
    "sha256_file",
    "write_bytes",
    "write_json",
    "write_sealed",
    "write_text",
]

_MOST_LINKS = 40  # as the kernel follows: MAXSYMLINKS in include/linux/namei.h


_SEAL = "seal"
_known_hashes: set[tuple[Path, int, int, int, int, str]] = set()


@contextlib.contextmanager
def atomic_writer(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Return a binary file that replaces `path` when the block ends without an error.

    Of a link, what it points to is replaced. A device, a pipe or one of this process's own
    descriptors (``/dev/stdout``) is opened and written into, so it may have a part of the data
    after an error.

    Raises
    ------
    HarnessError
        If the disk is full or the directory is not writable.
    """
    try:
        path = _followed(path)
        special = _open_special(path)
        if special is not None:
            with os.fdopen(special, "wb") as stream:
                yield stream
            return
        with _replacing(path, mode) as stream:
            yield stream
    except OSError as error:
        raise explained(error, path) from error


@contextlib.contextmanager
def _replacing(path: Path, mode: int) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _followed(path: Path) -> Path:
    """Return where the links at `path` lead, which may be absent.

    A link that somebody else made in a directory like ``/tmp`` is refused, as the kernel does
    with fs.protected_symlinks (Documentation/admin-guide/sysctl/fs.rst): a rename would not
    ask it.
    """
    for _ in range(_MOST_LINKS):
        if _descriptor(path) is not None or not path.is_symlink():
            return path
        around = path.parent.stat()
        shared = around.st_mode & stat.S_ISVTX and around.st_mode & stat.S_IWOTH
        if shared and path.lstat().st_uid not in (os.geteuid(), around.st_uid):
            raise PermissionError(errno.EACCES, "a link that another user made", str(path))
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _open_special(path: Path) -> int | None:
    """Open for writing what a rename would destroy; None for files, present or not."""
    descriptor = _descriptor(path)
    if descriptor is not None:  # opened anew it would be another place in the file, or fail
        return os.dup(descriptor)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC)


def _descriptor(path: Path) -> int | None:
    """Return the number if `path` is one of this process's descriptors, such as /dev/fd/1."""
    if path.name.isdecimal() and path.parent.resolve() == Path("/proc/self/fd").resolve():
        return int(path.name)
    return None


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


def write_sealed(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` as JSON with a digest of itself, for `read_sealed`."""
    write_json(path, {**document, _SEAL: _seal(document)})


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Return what `write_sealed` wrote; None if it is absent or was changed since."""
    try:
        document = read_json(path)
        seal = document.pop(_SEAL)
    except (HarnessError, KeyError, TypeError, AttributeError):
        return None
    return document if seal == _seal(document) else None


def replace_file(temporary: Path, path: Path) -> None:
    """Move a finished file, or a directory whose files are synced, to `path`: on disk before.

    Without that a power cut can leave the new name with no content (ext4: "delayed
    allocation", Documentation/filesystems/ext4).
    """
    handle = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    temporary.replace(path)
    _sync_directory(path.parent)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def has_sha256(path: Path, sha256: str) -> bool:
    """Whether a file has the hash; one that had it and was not written since is not read again."""
    state = _hash_state(path, sha256)
    if state not in _known_hashes:
        if sha256_file(path) != sha256:
            return False
        _known_hashes.add(state)
    return True


def note_sha256(path: Path, sha256: str) -> None:
    """Let `has_sha256` know the hash of a file that this process has written and hashed."""
    _known_hashes.add(_hash_state(path, sha256))


def _hash_state(path: Path, sha256: str) -> tuple[Path, int, int, int, int, str]:
    facts = path.stat()
    return path, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, sha256


@contextlib.contextmanager
def locked(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a flock(2), by default an exclusive one, on `path` (created if absent) for the block.

    The kernel drops the lock when the process dies, however it dies.

    Raises
    ------
    HarnessError
        If the file cannot be made or locked; with ``LOCK_NB``, if another one has the lock, and
        the cause is a `BlockingIOError`.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.open("a")), kind)
        except OSError as error:
            raise explained(error, path) from error
        yield


def _seal(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explained(error: OSError, path: Path) -> HarnessError:
    """Return the system's refusal to write at `path` as one line, with what to do about it."""
    hint = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = f"free some space below {path.parent} or choose another directory"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = f"make {path.parent} writable or choose another directory"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        hint = "a file stands where a directory should, or the other way: move it or choose another"
    return HarnessError(f"cannot write {path}: {error.strerror or error}", hint=hint)
