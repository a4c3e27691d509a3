"""Files by name in a directory or a tar archive: what image layouts are read from and written to.

Archives come from others: names in them never become paths of this machine, links are followed
inside the archive only, and whatever a digest names is verified by who reads it.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol

from hyperbox.errors import ImageError
from hyperbox.files import atomic_writer
from hyperbox.foreign import open_regular
from hyperbox.storage.documents import MOST_DOCUMENT

__all__ = ["Archive", "Sink", "directory_sink", "open_archive", "read_document", "tar_sink"]

_MOST_MEMBERS = 100_000
_MOST_LINKS = 8
_BLOCK = 1 << 20
_UNREADABLE = (OSError, ValueError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError)


class Archive(Protocol):
    """Files by name, to read."""

    def open(self, name: str) -> contextlib.AbstractContextManager[tuple[IO[bytes], int]]:
        """Yield a file and its size; ImageError if there is none."""


class Sink(Protocol):
    """Files by name, to write; each once."""

    def add(self, name: str, size: int, blocks: Iterable[bytes]) -> None:
        """Write a file."""


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a directory, or a tar file that may be compressed.

    Raises
    ------
    ImageError
        If it is neither.
    """
    if path.is_dir():
        yield _Directory(path)
        return
    try:
        with (
            open_regular(path) as (handle, _),
            os.fdopen(os.dup(handle), "rb") as stream,
            tarfile.open(fileobj=stream, mode="r:*") as tar,
        ):
            yield _Tar(tar, path)
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot read {path}: {reason}") from error


def read_document(archive: Archive, name: str, what: str) -> bytes:
    """Return a small file of an archive.

    Raises
    ------
    ImageError
        If there is none, or it is larger than documents may be.
    """
    with archive.open(name) as (stream, size):
        data = stream.read(MOST_DOCUMENT + 1) if size <= MOST_DOCUMENT else b""
    if size > MOST_DOCUMENT or len(data) > MOST_DOCUMENT:
        raise ImageError(f"{what} has more than {MOST_DOCUMENT} bytes")
    return data


class _Directory:
    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        path = self._root / name
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._root)):
            raise ImageError(f"{self._root}: {name[:200]!r} leads out of it")
        with contextlib.ExitStack() as stack:
            try:
                handle, facts = stack.enter_context(open_regular(path))
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise ImageError(f"cannot read {path}: {reason}") from error
            yield stack.enter_context(os.fdopen(os.dup(handle), "rb")), facts.st_size


class _Tar:
    def __init__(self, tar: tarfile.TarFile, path: Path) -> None:
        self._tar = tar
        self._path = path
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in tar:
            if len(self._members) >= _MOST_MEMBERS:
                raise ImageError(f"{path} has more than {_MOST_MEMBERS} files")
            self._members[posixpath.normpath(member.name)] = member

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        member = self._found(posixpath.normpath(name))
        stream = self._tar.extractfile(member)
        assert stream is not None
        with stream:
            yield stream, member.size

    def _found(self, name: str) -> tarfile.TarInfo:
        wanted = name
        for _ in range(_MOST_LINKS):
            member = self._members.get(name)
            if member is None:
                break
            if member.isreg():
                return member
            if member.islnk():
                name = posixpath.normpath(member.linkname)
            elif member.issym():  # docker save writes them for layers that stand twice
                name = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            else:
                break
        raise ImageError(f"{self._path} has no file {wanted[:200]!r}")


@contextlib.contextmanager
def tar_sink(path: Path) -> Iterator[Sink]:
    """Write a tar file, the same bytes for the same files; it is there when the block ends."""
    with (
        atomic_writer(path) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        yield _TarSink(tar)


@contextlib.contextmanager
def directory_sink(path: Path) -> Iterator[Sink]:
    """Write files below a directory, each whole or absent."""
    yield _DirectorySink(path)


class _TarSink:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def add(self, name: str, size: int, blocks: Iterable[bytes]) -> None:
        member = tarfile.TarInfo(name)
        member.size = size
        member.mode = 0o644
        self._tar.addfile(member, io.BufferedReader(_Blocks(blocks), _BLOCK))


class _DirectorySink:
    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, name: str, size: int, blocks: Iterable[bytes]) -> None:
        with atomic_writer(self._root / name) as stream:
            for block in blocks:
                stream.write(block)


class _Blocks(io.RawIOBase):
    """Blocks as a file, for tarfile."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = next(self._blocks, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
