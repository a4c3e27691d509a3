"""Files by the digest of their data, for composefs: equal ones once, whatever image has them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
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
        hasher = Hasher()
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._temporary() as (handle, name):
                for offset, data in pieces:
                    os.pwrite(handle, data, offset)
                    hasher.add(offset, data)
                os.ftruncate(handle, size)
                os.fchmod(handle, 0o444)
                sha256 = hasher.digest(size)
                path = self.path(sha256)
                if not path.exists():
                    path.parent.mkdir(exist_ok=True)
                    name.replace(path)
        except OSError as error:
            raise explained(error, self.root) from error
        return Content(size, sha256)

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
    def _temporary(self) -> Iterator[tuple[int, Path]]:
        handle, name = tempfile.mkstemp(dir=self.root, prefix=".new-")
        try:
            yield handle, Path(name)
        finally:
            os.close(handle)
            Path(name).unlink(missing_ok=True)
