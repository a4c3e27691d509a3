"""An image that is fetched as it is read: ranges become verified bytes, or an error.

One flight for each chunk: whoever needs a chunk that another thread fetches waits for it, and
another process's flight is waited for, too. No byte leaves this module that was not verified
by the image's chunk index. Each read has a limit; when it is over, the read fails, and the next
one tries again.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from hyperbox.errors import WorkloadError
from hyperbox.storage.lazy.chunk_index import Chunk, ChunkIndex, Compression
from hyperbox.storage.lazy.chunk_source import ChunkSource, SourceFailed
from hyperbox.storage.lazy.content_cache import CachedImage
from hyperbox.storage.zstd import BadFrame, decompress

__all__ = ["Counts", "LazyImage", "Unreadable"]

_LIMIT_S = 30.0
_PAUSES_S = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0)  # before each round over the sources
_OTHERS_S = 0.01  # between two looks at a chunk that another process fetches
_LONGEST_RUN = 8 << 20  # bytes of one request
_AHEAD = 8  # chunks at most, for readers that go forward
_STOP = object()


class Unreadable(WorkloadError):
    """A range could not be had within the limit; a reader gets EIO."""


@dataclass(frozen=True)
class Counts:
    """What an image's reads have cost so far."""

    hits: int = 0
    """Reads whose chunks were all here."""
    misses: int = 0
    fetched: int = 0
    """Stored bytes that sources have sent, also those that were refused."""
    chunks: int = 0
    """Chunks that were fetched and verified."""
    refused: int = 0
    """Chunks whose bytes were not those that the index names."""
    failed: int = 0
    """Requests that a source did not answer as it should."""
    errors: int = 0
    """Reads that failed."""


class LazyImage:
    """Reads of one image, over its cache and its sources; used by any number of threads.

    Parameters
    ----------
    sources
        Tried in order, again and again until the limit.
    limit_s
        Seconds after which a read fails.
    """

    def __init__(
        self,
        cached: CachedImage,
        sources: Sequence[ChunkSource],
        *,
        limit_s: float = _LIMIT_S,
    ) -> None:
        self.cached = cached
        self._sources = tuple(sources)
        self._limit_s = limit_s
        self._guard = threading.Lock()
        self._flights: dict[int, Future[None]] = {}
        self._counts = Counts()
        self._waiting = 0
        self._quiet = threading.Condition(self._guard)
        self._order: list[int] = []
        self._closing = threading.Event()
        self._last_missed = -1
        self._forward = 0
        self._written: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._ahead: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=work, name=f"lazy-{name}", daemon=True)
            for name, work in (("commit", self._commit), ("ahead", self._go_ahead))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def index(self) -> ChunkIndex:
        """Return the index that its chunks are verified by."""
        return self.cached.index

    @property
    def counts(self) -> Counts:
        """Return what reads have cost so far."""
        with self._guard:
            return self._counts

    @property
    def order(self) -> Sequence[int]:
        """Return the chunks that readers missed, in order: what to prefetch at the next start."""
        with self._guard:
            return tuple(self._order)

    def read(self, offset: int, length: int) -> bytes:
        """Return a range of the image; less of it at its end.

        Raises
        ------
        Unreadable
            If it cannot be had within the limit.
        """
        self.ensure(offset, length)
        return self.cached.read(offset, min(length, max(self.index.size - offset, 0)))

    def ensure(self, offset: int, length: int) -> None:
        """Wait until a range is in the cache's file.

        Raises
        ------
        Unreadable
            If it cannot be had within the limit.
        """
        chunks = self.index.covering(offset, length)
        missing = [chunk for chunk in chunks if not self.cached.present(chunk)]
        self._count(hits=not missing, misses=bool(missing))
        if not missing:
            return
        self._noticed(missing)
        with self._demanding():
            try:
                self._fetch(missing)
            except WorkloadError:
                self._count(errors=1)
                raise

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Fetch chunks by number after what readers wait for, in another thread."""
        for number in numbers:
            if 0 <= number < len(self.index.chunks):
                self._ahead.put(self.index.chunks[number])

    def fetch_for_later(self, chunks: Sequence[Chunk]) -> None:
        """Fetch chunks once no reader waits for any.

        Raises
        ------
        Unreadable
            If they cannot be had within the limit.
        """
        with self._quiet:
            self._quiet.wait_for(lambda: self._waiting == 0)
        self._fetch([chunk for chunk in chunks if not self.cached.present(chunk)])

    def close(self) -> None:
        """End its threads; what was written is marked before, and readers that wait fail."""
        self.give_up()
        self._ahead.put(_STOP)
        self._threads[1].join()
        self._written.put(_STOP)
        self._threads[0].join()
        self.cached.close()

    def give_up(self) -> None:
        """Let readers that wait fail soon, not after the limit."""
        self._closing.set()

    def flush(self) -> None:
        """Wait until what was written is marked on disk."""
        done: Future[None] = Future()
        self._written.put(done)
        done.result()

    @contextlib.contextmanager
    def _demanding(self) -> Iterator[None]:
        """Count a reader that waits: what is fetched for later waits for it."""
        with self._guard:
            self._waiting += 1
        try:
            yield
        finally:
            with self._quiet:
                self._waiting -= 1
                self._quiet.notify_all()

    def _noticed(self, missing: Sequence[Chunk]) -> None:
        """Remember what was missed, and read ahead of readers that go forward."""
        with self._guard:
            self._order += [chunk.number for chunk in missing]
            goes_on = missing[0].number in (self._last_missed, self._last_missed + 1)
            self._forward = min(max(self._forward * 2, 1), _AHEAD) if goes_on else 0
            self._last_missed = missing[-1].number + self._forward
            ahead = self._forward
        self.prefetch(range(missing[-1].number + 1, missing[-1].number + 1 + ahead))

    def _fetch(self, chunks: Sequence[Chunk]) -> None:
        """Fetch what no other thread does, and wait for the others."""
        deadline = time.monotonic() + self._limit_s
        mine, others = self._claimed(chunks)
        try:
            for run in _runs(mine):
                self._fly(run, deadline)
        finally:
            self._landed(mine)
        for flight in others:
            try:
                flight.result(max(deadline - time.monotonic(), 0))
            except TimeoutError:
                raise Unreadable(f"no answer within {self._limit_s:g} s") from None

    def _claimed(self, chunks: Sequence[Chunk]) -> tuple[Sequence[Chunk], Sequence[Future[None]]]:
        mine, others = [], []
        with self._guard:
            for chunk in chunks:
                flight = self._flights.get(chunk.number)
                if flight is not None:
                    others.append(flight)
                elif not self.cached.present(chunk):
                    self._flights[chunk.number] = Future()
                    mine.append(chunk)
        return mine, others

    def _landed(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            with self._guard:
                flight = self._flights.pop(chunk.number)
            if self.cached.present(chunk):
                flight.set_result(None)
            else:
                flight.set_exception(Unreadable(f"chunk {chunk.number} could not be fetched"))

    def _fly(self, run: Sequence[Chunk], deadline: float) -> None:
        """Fetch chunks that are stored in a row; wait for other processes that do."""
        ours: dict[int, Chunk] = {}  # until they are left to the thread that marks them
        try:
            for chunk in run:
                if self._is_ours(chunk, deadline):
                    ours[chunk.number] = chunk
            for part in _runs(list(ours.values())):
                self._from_sources(part, deadline, ours)
        finally:
            for chunk in ours.values():
                self.cached.release(chunk)

    def _is_ours(self, chunk: Chunk, deadline: float) -> bool:
        while not self.cached.claim(chunk):
            if time.monotonic() > deadline or self._closing.wait(_OTHERS_S):
                raise Unreadable(f"chunk {chunk.number}: another process does not fetch it")
        if self.cached.present(chunk):  # the other process has it by now
            self.cached.release(chunk)
            return False
        return True

    def _from_sources(self, run: Sequence[Chunk], deadline: float, ours: dict[int, Chunk]) -> None:
        why: Exception = SourceFailed("no source")
        for turn in range(1 << 30):
            for source in self._sources:
                try:
                    self._take(source, run, ours)
                except SourceFailed as error:
                    why = error
                else:
                    return
                if time.monotonic() > deadline:
                    break
            pause = _PAUSES_S[min(turn + 1, len(_PAUSES_S) - 1)]
            late = time.monotonic() + pause > deadline
            if late or not self._sources or self._closing.wait(pause):
                break
        raise Unreadable(f"chunk {run[0].number} cannot be fetched: {why}") from why

    def _take(self, source: ChunkSource, run: Sequence[Chunk], ours: dict[int, Chunk]) -> None:
        """Fetch a run from a source; what is right of it is kept even if the rest is not."""
        run = [chunk for chunk in run if chunk.number in ours]
        start = run[0].stored_at
        length = run[-1].stored_at + run[-1].stored_length - start
        try:
            data = source.read(start, length)
        except SourceFailed:
            self._count(failed=1)
            raise
        self._count(fetched=len(data))
        for chunk in run:
            if self._kept(chunk, data, start):
                del ours[chunk.number]
        bad = [chunk for chunk in run if chunk.number in ours]
        if bad:
            raise SourceFailed(f"{source.name}: chunk {bad[0].number} is not what its index says")

    def _kept(self, chunk: Chunk, data: bytes, start: int) -> bool:
        """Verify and write a chunk; False if its bytes are wrong."""
        stored = data[chunk.stored_at - start : chunk.stored_at - start + chunk.stored_length]
        if not chunk.is_stored_as(stored):
            self._count(refused=1)
            return False
        try:
            if self.index.compression is Compression.ZSTD:
                stored = decompress(stored, chunk.length)
            self.cached.write(chunk, stored)
        except BadFrame as error:  # what the index names is broken: another source has the same
            raise Unreadable(f"chunk {chunk.number}: {error.message}") from error
        except OSError as error:
            raise Unreadable(f"cannot write {self.cached.data}: {error.strerror}") from error
        self._count(chunks=1)
        self._written.put((chunk, zlib.crc32(stored)))
        return True

    def _commit(self) -> None:
        """Mark what was written, many at a time."""
        while True:
            taken = [self._written.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    taken.append(self._written.get_nowait())
            written = [one for one in taken if isinstance(one, tuple)]
            if written:
                with contextlib.suppress(OSError):  # not marked: fetched again after a restart
                    self.cached.commit(written)
                for chunk, _ in written:
                    self.cached.release(chunk)
            for one in taken:
                if isinstance(one, Future):
                    one.set_result(None)
            if _STOP in taken:
                return

    def _go_ahead(self) -> None:
        while (chunk := self._ahead.get()) is not _STOP:
            if isinstance(chunk, Chunk) and not self.cached.present(chunk):
                with contextlib.suppress(WorkloadError):
                    self.fetch_for_later([chunk])

    def _count(self, **more: int) -> None:
        with self._guard:
            now = {name: getattr(self._counts, name) + count for name, count in more.items()}
            self._counts = replace(self._counts, **now)


def _runs(chunks: Sequence[Chunk]) -> Iterator[Sequence[Chunk]]:
    """Return chunks that are stored in a row, of at most `_LONGEST_RUN` bytes, together."""
    run: list[Chunk] = []
    for chunk in chunks:
        if run:
            adjacent = run[-1].stored_at + run[-1].stored_length == chunk.stored_at
            length = chunk.stored_at + chunk.stored_length - run[0].stored_at
            if not adjacent or length > _LONGEST_RUN:
                yield run
                run = []
        run.append(chunk)
    if run:
        yield run
