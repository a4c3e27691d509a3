"""Files by the digest of their data, for composefs: equal ones once, whatever image has them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from hyperbox.files import explained
from hyperbox.storage.content_sink import INLINE_BYTES, Hasher, inline_content
from hyperbox.storage.inode import Content
from hyperbox.storage.tar_header import Span

__all__ = ["ObjectStore"]


class ObjectStore:
    """The objects below a directory, ``XX/REST`` by the hexadecimal digits of their SHA-256.

    They become durable together: `sync` before anything refers to them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._top = os.fspath(root)
        self._directories: set[str] = set()  # that are there

    def path(self, sha256: str) -> Path:
        """Return where an object is."""
        return self.root / sha256[:2] / sha256[2:]

    def put(
        self, size: int, spans: tuple[Span, ...], pieces: Iterable[tuple[int, bytes]]
    ) -> Content:
        """Take a file; see `hyperbox.storage.content_sink.ContentSink`."""
        if not size:
            return Content()
        if size <= INLINE_BYTES:
            return inline_content(size, pieces)
        current = iter(pieces)
        first = next(current, (0, b""))
        try:
            self._directory("")
            if len(first[1]) == size:  # most files: one that is here already is not written
                sha256 = hashlib.sha256(first[1]).hexdigest()
                if not os.path.exists(self._place(sha256)):  # noqa: PTH110 - once a file: quicker
                    self._write(size, (first,), sha256)
            else:
                sha256 = self._write(size, itertools.chain((first,), current))
        except OSError as error:
            raise explained(error, self.root) from error
        return Content(size, sha256)

    def _place(self, sha256: str) -> str:
        return f"{self._top}/{sha256[:2]}/{sha256[2:]}"

    def _write(self, size: int, pieces: Iterable[tuple[int, bytes]], sha256: str = "") -> str:
        """Write an object, under a name of its own until it is whole; return its digest."""
        hasher = Hasher()
        with self._temporary() as (handle, name):
            end = 0
            for offset, data in pieces:
                os.pwrite(handle, data, offset)
                end = offset + len(data)
                if not sha256:
                    hasher.add(offset, data)
            if end < size:
                os.ftruncate(handle, size)
            os.fchmod(handle, 0o444)
            sha256 = sha256 or hasher.digest(size)
            self._directory(sha256[:2])
            os.replace(name, self._place(sha256))  # noqa: PTH105 - once a file: quicker
        return sha256

    def _directory(self, name: str) -> None:
        if name not in self._directories:
            mode = 0o755 if name else 0o700
            (self.root / name).mkdir(mode=mode, parents=not name, exist_ok=True)
            self._directories.add(name)

    def sync(self) -> None:
        """Write everything to disk: syncfs(2) for the file system, by what Python has of it."""
        os.sync()

    def holds(self, sha256: str) -> bool:
        """Whether an object is there and is what its name says."""
        try:
            with self.path(sha256).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[int, str]]:
        name = f"{self._top}/.new-{os.getpid()}-{threading.get_ident()}"
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            yield handle, name
        finally:
            os.close(handle)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108 - once a file: quicker
