"""Content by digest in a directory: whole and verified, or absent.

What arrives goes to a file of its own below ``partial/``, which survives crashes and is gone on
with, and is renamed to ``blobs/ALGORITHM/DIGITS`` when its bytes have the digest and are on disk.
Whoever fetches a blob holds flock(2) on its partial file: others, of any process, wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from hyperbox.errors import HarnessError, ImageError
from hyperbox.files import explained, replace_file
from hyperbox.foreign import open_regular
from hyperbox.storage.digests import algorithm, check_digest, digest_of, hexadecimal, new_hash
from hyperbox.storage.documents import MOST_DOCUMENT
from hyperbox.storage.oci import Descriptor

__all__ = ["Blobs", "Incoming"]

_CHUNK = 1 << 20
_WAIT_S = 0.05  # between two looks at a lock that another one holds
Check = Callable[[float], None]
"""Called while waiting with seconds to pass; raises to give up."""


class Incoming:
    """A blob on its way: bytes are appended, and hashed as they come."""

    def __init__(self, handle: int, path: Path, descriptor: Descriptor) -> None:
        self._handle = handle
        self._path = path
        self.descriptor = descriptor
        self.size = 0
        self._hash = new_hash(descriptor.digest)
        self._take_up()

    def append(self, data: bytes) -> None:
        """Add bytes.

        Raises
        ------
        HarnessError
            If they cannot be written.
        """
        self._hash.update(data)
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._handle, rest, self.size)
                self.size += written
                rest = rest[written:]
        except OSError as error:
            raise explained(error, self._path) from error

    def restart(self) -> None:
        """Forget all bytes."""
        os.ftruncate(self._handle, 0)
        self.size = 0
        self._hash = new_hash(self.descriptor.digest)

    @property
    def is_right(self) -> bool:
        """Whether the bytes have size and digest."""
        return self.size == self.descriptor.size and self._hash.hexdigest() == hexadecimal(
            self.descriptor.digest
        )

    def _take_up(self) -> None:
        """Hash what an earlier attempt left; what is too long is of no use."""
        if os.fstat(self._handle).st_size > self.descriptor.size:
            self.restart()
        while data := os.pread(self._handle, _CHUNK, self.size):
            self._hash.update(data)
            self.size += len(data)


class Blobs:
    """The blobs below a directory; any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Return where a blob is, or would be."""
        check_digest(digest, "a blob")
        return self.root / "blobs" / algorithm(digest) / hexadecimal(digest)

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there, with its size; its bytes were verified when it came."""
        try:
            facts = self.path(descriptor.digest).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return facts.st_size == descriptor.size

    def digests(self) -> Iterator[tuple[str, int]]:
        """Return digest and size of every blob."""
        for kind in ("sha256", "sha512"):
            with contextlib.suppress(FileNotFoundError):
                for entry in sorted(os.scandir(self.root / "blobs" / kind), key=lambda e: e.name):
                    with contextlib.suppress(ImageError, FileNotFoundError):
                        digest = check_digest(f"{kind}:{entry.name}", "a blob")
                        yield digest, entry.stat(follow_symlinks=False).st_size

    def read_document(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified.

        Raises
        ------
        ImageError
            If it is absent, changed on disk, or larger than documents may be.
        """
        if descriptor.size > MOST_DOCUMENT:
            raise ImageError(f"{descriptor.digest} has more than {MOST_DOCUMENT} bytes")
        with self.opened(descriptor) as stream:
            data = stream.read(MOST_DOCUMENT + 1)
        found = new_hash(descriptor.digest)
        found.update(data)
        if found.hexdigest() != hexadecimal(descriptor.digest):
            raise _damaged(descriptor)
        return data

    @contextlib.contextmanager
    def opened(self, descriptor: Descriptor) -> Iterator[BinaryIO]:
        """Yield a blob as a file to read; ImageError if it is absent."""
        with self._opened(descriptor) as handle, os.fdopen(os.dup(handle), "rb") as stream:
            yield stream

    def verify(self, descriptor: Descriptor) -> None:
        """Read a blob and compare it with its digest; ImageError if it is absent or changed."""
        found = new_hash(descriptor.digest)
        size = 0
        with self._opened(descriptor) as handle:
            while data := os.pread(handle, _CHUNK, size):
                found.update(data)
                size += len(data)
        if size != descriptor.size or found.hexdigest() != hexadecimal(descriptor.digest):
            raise _damaged(descriptor)

    def add(self, data: bytes, media_type: str) -> Descriptor:
        """Keep a document of ours, or one that is verified; return its descriptor."""
        descriptor = Descriptor(media_type, digest_of(data), len(data))
        self.put(descriptor, data)
        return descriptor

    def put(self, descriptor: Descriptor, data: bytes) -> None:
        """Keep bytes that should have a digest; as `incoming`."""
        with self.incoming(descriptor) as sink:
            if sink is not None:
                sink.restart()
                sink.append(data)

    @contextlib.contextmanager
    def incoming(
        self, descriptor: Descriptor, wait: Check | None = None
    ) -> Iterator[Incoming | None]:
        """Yield where a blob's bytes go, or None if it is there; after the block it is kept.

        An earlier attempt's bytes are there already: `Incoming.size` says how many. Another
        process that fetches the same blob is waited for.

        Parameters
        ----------
        wait
            Called while another one has the blob.

        Raises
        ------
        ImageError
            If the bytes do not have size and digest; they are gone then.
        HarnessError
            If they cannot be written.
        """
        if self.has(descriptor):
            yield None
            return
        partial = self.root / "partial" / descriptor.digest.replace(":", "-")
        with self._partial(partial, wait) as handle:
            if self.has(descriptor):  # by now
                partial.unlink(missing_ok=True)
                yield None
                return
            sink = Incoming(handle, partial, descriptor)
            yield sink
            if not sink.is_right:
                partial.unlink(missing_ok=True)
                raise ImageError(
                    f"{descriptor.digest}: the {sink.size} bytes that came do not have this "
                    f"digest and size ({descriptor.size})"
                )
            self._keep(partial, self.path(descriptor.digest))

    def remove(self, digest: str) -> None:
        """Remove a blob; nobody must be using it."""
        path = self.path(digest)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise explained(error, path) from error

    def _keep(self, partial: Path, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.chmod(0o444)
            replace_file(partial, path)
        except OSError as error:
            raise explained(error, path) from error

    @contextlib.contextmanager
    def _partial(self, path: Path, wait: Check | None) -> Iterator[int]:
        """Yield a descriptor of a partial file of which this thread has the lock."""
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise explained(error, path) from error
            try:
                _lock(handle, path, wait)
                if _is_at(handle, path):  # and was not renamed or removed meanwhile
                    yield handle
                    return
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _opened(self, descriptor: Descriptor) -> Iterator[int]:
        path = self.path(descriptor.digest)
        try:
            with open_regular(path, os.O_NOFOLLOW) as (handle, _):
                yield handle
        except FileNotFoundError:
            raise ImageError(
                f"{descriptor.digest} is not in {self.root}", hint="pull the image again"
            ) from None
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot read {path}: {error}") from error


def _lock(handle: int, path: Path, wait: Check | None) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if wait else 0))
        except BlockingIOError:
            assert wait is not None
            wait(_WAIT_S)
        except OSError as error:
            if error.errno == errno.EINTR:
                continue
            raise HarnessError(f"cannot lock {path}: {error.strerror}") from error
        else:
            return


def _is_at(handle: int, path: Path) -> bool:
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _damaged(descriptor: Descriptor) -> ImageError:
    return ImageError(
        f"{descriptor.digest} has changed on disk", hint="remove it and pull the image again"
    )
