"""What was fetched and verified, on disk: sparse files that several processes fill together.

A directory for each image, named by the digest of its chunk index: `data` is the image with
holes where nothing was fetched yet, `map` has eight bytes a chunk that say whether it is there
and its CRC-32. A chunk is marked only after its bytes are on disk (fdatasync(2)), so that
neither a kill nor a power cut at any point leaves a mark without its bytes; one that was not
marked is fetched again. A byte of `map` is a lock as well: the process that fetches a chunk holds
a lock on its record (``F_OFD_SETLK``, fcntl(2)), which ends with the process.

`lock` is held shared (flock(2)) by all that use an image; eviction takes what nobody holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import ConfigError
from hyperbox.files import explained, write_bytes
from hyperbox.storage.lazy.chunk_index import Chunk, ChunkIndex

__all__ = ["CachedImage", "ContentCache", "Evicted", "Held"]

_LAYOUT = "v1"  # another layout lies beside it
_RECORD = struct.Struct("<II")  # mark, CRC-32 of the chunk's bytes in the image
_MARK = 0x6B68_7862
_KEY = re.compile(r"[0-9a-f]{64}")
_OFD_LOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, len, pid
_GONE = ".gone"
_FLAGS = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class CachedImage:
    """The cached part of one image, open; used by several threads at once."""

    def __init__(self, directory: Path, index: ChunkIndex, lock: int) -> None:
        self.directory = directory
        self.index = index
        self._lock = lock
        self._guard = threading.Lock()
        with contextlib.ExitStack() as undone, _alone(directory):
            self._data = os.open(directory / "data", os.O_RDWR | _FLAGS, 0o600)
            undone.callback(os.close, self._data)
            self._map = os.open(directory / "map", os.O_RDWR | _FLAGS, 0o600)
            undone.callback(os.close, self._map)
            self._shape()
            undone.pop_all()
        self._present = bytearray(len(index.chunks))
        self._refresh()

    def __enter__(self) -> CachedImage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def data(self) -> Path:
        """Return the file that is the image where it was fetched, and has holes elsewhere."""
        return self.directory / "data"

    def present(self, chunk: Chunk) -> bool:
        """Whether a chunk is here: written by this process, or marked by any."""
        if self._present[chunk.number]:
            return True
        record = os.pread(self._map, _RECORD.size, chunk.number * _RECORD.size)
        if len(record) != _RECORD.size or _RECORD.unpack(record)[0] != _MARK:
            return bool(self._present[chunk.number])  # another thread may have written it by now
        self._present[chunk.number] = 1
        return True

    def absent(self) -> Sequence[Chunk]:
        """Return the chunks that are not here."""
        self._refresh()
        return [chunk for chunk in self.index.chunks if not self._present[chunk.number]]

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of chunks that are present; fewer at the end of the image."""
        return os.pread(self._data, length, offset)

    def adopt(self, handle: int) -> None:
        """Read and write the data through a copy of another descriptor of the same file."""
        os.dup2(handle, self._data, inheritable=False)

    def write(self, chunk: Chunk, data: bytes) -> None:
        """Write a verified chunk; readers of this process have it from now on.

        Raises
        ------
        OSError
            If the disk is full; nothing is marked then.
        """
        _write_all(self._data, data, chunk.offset)
        self._present[chunk.number] = 1

    def commit(self, written: Sequence[tuple[Chunk, int]]) -> None:
        """Mark chunks that were written, each with its CRC-32, once they are on disk.

        Raises
        ------
        OSError
            If they are not: nothing is marked then.
        """
        os.fdatasync(self._data)
        for chunk, crc in written:
            os.pwrite(self._map, _RECORD.pack(_MARK, crc), chunk.number * _RECORD.size)

    def claim(self, chunk: Chunk) -> bool:
        """Become the process that fetches a chunk; False while another one does."""
        return self._ofd(fcntl.F_WRLCK, chunk)

    def release(self, chunk: Chunk) -> None:
        """Let others fetch a chunk."""
        self._ofd(fcntl.F_UNLCK, chunk)

    def damaged(self) -> Sequence[Chunk]:
        """Read all that is here, forget the chunks whose bytes have changed, and return them."""
        found = []
        for chunk in self.index.chunks:
            record = os.pread(self._map, _RECORD.size, chunk.number * _RECORD.size)
            mark, crc = _RECORD.unpack(record)
            if mark == _MARK and zlib.crc32(self.read(chunk.offset, chunk.length)) != crc:
                os.pwrite(self._map, bytes(_RECORD.size), chunk.number * _RECORD.size)
                self._present[chunk.number] = 0
                found.append(chunk)
        return found

    def close(self) -> None:
        """Stop using it; it may be evicted then."""
        for handle in (self._data, self._map, self._lock):
            os.close(handle)

    def _shape(self) -> None:
        """Make both files as long as they have to be; marks of a file of other length are void."""
        if os.fstat(self._data).st_size != self.index.size:
            os.ftruncate(self._map, 0)
            os.fsync(self._map)
            os.ftruncate(self._data, 0)
            os.ftruncate(self._data, self.index.size)
        os.ftruncate(self._map, len(self.index.chunks) * _RECORD.size)

    def _refresh(self) -> None:
        with self._guard:
            records = os.pread(self._map, len(self._present) * _RECORD.size, 0)
            for number, (mark, _) in enumerate(_RECORD.iter_unpack(records)):
                if mark == _MARK:
                    self._present[number] = 1

    def _ofd(self, kind: int, chunk: Chunk) -> bool:
        start, length = chunk.number * _RECORD.size, _RECORD.size
        request = _OFD_LOCK.pack(kind, os.SEEK_SET, start, length, 0)
        try:
            fcntl.fcntl(self._map, fcntl.F_OFD_SETLK, request)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True


@dataclass(frozen=True)
class Held:
    """An image of the cache: what it takes on disk, and whether anybody uses it."""

    key: str
    size: int
    on_disk: int
    chunks: int
    present: int
    in_use: bool
    used_at: float
    """Seconds since the epoch of its last opening."""


@dataclass(frozen=True)
class Evicted:
    """What an eviction took: keys, and bytes that the disk has back."""

    keys: tuple[str, ...]
    bytes_freed: int


class ContentCache:
    """All cached images below a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root / _LAYOUT

    def open(self, key: str, index: ChunkIndex, payload: bytes = b"") -> CachedImage:
        """Open an image's cache, or make an empty one; it is not evicted until it is closed.

        Parameters
        ----------
        key
            SHA-256 of the image's chunk index, 64 hexadecimal digits.
        payload
            The index itself, kept beside the data if it is given.

        Raises
        ------
        ConfigError
            If the key is none.
        HarnessError
            If it cannot be made.
        """
        if _KEY.fullmatch(key) is None:
            raise ConfigError(f"{key[:80]!r} is not the digest of a chunk index")
        directory = self._root / key
        try:
            lock = self._shared(directory)
            os.utime(directory / "lock")
            with contextlib.ExitStack() as undone:
                undone.callback(os.close, lock)
                kept = directory / "index"
                if payload and not kept.exists():
                    write_bytes(kept, payload, 0o600)
                opened = CachedImage(directory, index, lock)
                undone.pop_all()
                return opened
        except OSError as error:
            raise explained(error, directory) from error

    def index_payload(self, key: str) -> bytes | None:
        """Return the chunk index that is kept with an image; None without one."""
        with contextlib.suppress(OSError):
            return (self._root / key / "index").read_bytes()
        return None

    def held(self) -> Sequence[Held]:
        """Return what is cached, that which was used last at the end."""
        found = [one for path in self._directories() if (one := _held(path)) is not None]
        return sorted(found, key=lambda one: (one.used_at, one.key))

    def evict(self, quota: int) -> Evicted:
        """Take images that nobody uses, the longest unused first, until the rest fits a quota.

        Parameters
        ----------
        quota
            Bytes on disk.
        """
        held = self.held()
        left = sum(one.on_disk for one in held)
        taken, freed = [], 0
        for one in held:
            if left <= quota:
                break
            if _removed(self._root / one.key):
                taken.append(one.key)
                freed, left = freed + one.on_disk, left - one.on_disk
        return Evicted(tuple(taken), freed)

    def _directories(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self._root.iterdir()):
                if path.name.endswith(_GONE):  # its remover died
                    shutil.rmtree(path, ignore_errors=True)
                elif _KEY.fullmatch(path.name):
                    yield path

    def _shared(self, directory: Path) -> int:
        """Lock a directory that is still there: an evictor may rename it in between."""
        while True:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                lock = os.open(directory / "lock", os.O_RDWR | _FLAGS, 0o600)
            except FileNotFoundError:
                continue
            fcntl.flock(lock, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if (directory / "lock").stat().st_ino == os.fstat(lock).st_ino:
                    return lock
            os.close(lock)


def _held(directory: Path) -> Held | None:
    try:
        facts, lock = (directory / "data").stat(), (directory / "lock").stat()
        records = (directory / "map").read_bytes()
    except OSError:
        return None
    whole = len(records) - len(records) % _RECORD.size
    marks = [mark for mark, _ in _RECORD.iter_unpack(records[:whole])]
    return Held(
        directory.name,
        facts.st_size,
        facts.st_blocks * 512,
        len(marks),
        marks.count(_MARK),
        _is_in_use(directory),
        lock.st_mtime,
    )


def _is_in_use(directory: Path) -> bool:
    with _unused(directory) as unused:
        return not unused


def _removed(directory: Path) -> bool:
    with _unused(directory) as unused:
        if not unused:
            return False
        gone = directory.with_name(f"{directory.name}.{os.getpid()}{_GONE}")
        directory.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        return True


@contextlib.contextmanager
def _unused(directory: Path) -> Iterator[bool]:
    """Hold a directory's lock alone for the block; False if it is in use or gone."""
    try:
        lock = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(lock)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let no other process make or reshape a directory's files for the block."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(handle, view, offset)
        view, offset = view[count:], offset + count
