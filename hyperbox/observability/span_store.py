"""The store in this process: the newest batches within a bound of bytes, to search and to follow.

Readers pull: each has a cursor of its own, and a slow one costs nothing but finds, in the end,
that batches have gone.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hyperbox.observability.batches import Batch
from hyperbox.observability.span_query import Query
from hyperbox.observability.spans import ResourceSpans

__all__ = ["STORE_BYTES", "Cursor", "Found", "Page", "SpanStore", "StoreReport"]

STORE_BYTES = 16 << 20
"""What is kept at most, in bytes: a part of the 50 MB that tracing may take."""

_HEX = re.compile(r"[0-9a-f]{1,16}")
_OVERHEAD = 1024  # bytes that Python takes for a batch and its traits, beside the data
_MOST_DECODED = 5_000  # spans that one search looks at: a few tens of milliseconds


@dataclass(frozen=True, order=True)
class Cursor:
    """A place in a store: after batch `number`, before its span `index` for a search.

    `epoch` is the store's: a cursor of an earlier one means nothing to a later one.
    """

    epoch: int
    number: int
    index: int = 0

    def __str__(self) -> str:
        return f"{self.epoch:x}-{self.number:x}" + (f".{self.index:x}" if self.index else "")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str` has made of one.

        Raises
        ------
        ValueError
            If it is none.
        """
        epoch, dash, rest = text.partition("-")
        number, _, index = rest.partition(".")
        parts = (epoch, number, index or "0")
        if not dash or not all(_HEX.fullmatch(part) for part in parts):
            raise ValueError("not a cursor")
        return cls(*(int(part, 16) for part in parts))


@dataclass(frozen=True)
class Page:
    """Batches in order, and the cursor after the last one of them.

    `missed` is how many batches between the reader's cursor and the first one have gone; -1 if
    the cursor was of another store.
    """

    batches: Sequence[Batch]
    cursor: Cursor
    missed: int = 0


@dataclass(frozen=True)
class Found:
    """Spans of a search, the newest first, and where to go on; None at the end.

    There may be fewer than were asked for, even none, and more to come.
    """

    spans: Sequence[ResourceSpans]
    next: Cursor | None


@dataclass(frozen=True)
class StoreReport:
    """What is in a store: spans, batches, bytes; spans that came and were evicted; oldest time."""

    spans: int = 0
    batches: int = 0
    bytes: int = 0
    most_bytes: int = 0
    added: int = 0
    evicted: int = 0
    oldest_unix_ns: int | None = None


class SpanStore:
    """Keeps the newest batches; safe for any threads.

    Parameters
    ----------
    most_bytes
        What the batches may take.
    """

    def __init__(self, most_bytes: int = STORE_BYTES) -> None:
        self._most = most_bytes
        self._lock = threading.Lock()
        self._batches: deque[Batch] = deque()
        self._last = 0  # number of the newest batch; the first one ever is 1
        self._bytes = self._spans = self._added = 0
        self._epoch = time.time_ns() >> 10
        self._watchers: list[Callable[[], None]] = []

    def add(self, batches: Sequence[Batch]) -> None:
        """Append batches, evict the oldest for them, and call who watches."""
        with self._lock:
            for batch in batches:
                self._batches.append(batch)
                self._last += 1
                self._bytes += len(batch.data) + _OVERHEAD
                self._spans += batch.spans
                self._added += batch.spans
            while self._bytes > self._most and self._batches:
                oldest = self._batches.popleft()
                self._bytes -= len(oldest.data) + _OVERHEAD
                self._spans -= oldest.spans
            watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher()

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher`, which must not wait, after each addition; return what ends that."""
        with self._lock:
            self._watchers.append(watcher)

        def end() -> None:
            with self._lock:
                self._watchers.remove(watcher)

        return end

    def newest(self) -> Cursor:
        """Return the cursor after all that is there."""
        with self._lock:
            return Cursor(self._epoch, self._last)

    def oldest(self) -> Cursor:
        """Return the cursor before all that is there."""
        with self._lock:
            return Cursor(self._epoch, self._last - len(self._batches))

    def after(self, cursor: Cursor, most_bytes: int) -> Page:
        """Return the batches after a cursor, `most_bytes` of them; one at least, if any is."""
        with self._lock:
            ours = cursor.epoch == self._epoch and cursor.number <= self._last
            wanted = self._last - cursor.number if ours else len(self._batches)
            count = min(wanted, len(self._batches))
            newest = itertools.islice(reversed(self._batches), count)
            waiting = [*newest][::-1]
            number = self._last - count
        sizes = itertools.accumulate(len(batch.data) for batch in waiting)
        taken = sum(1 for _ in itertools.takewhile(lambda size: size <= most_bytes, sizes))
        batches = waiting[: max(1, taken)]
        missed = wanted - count if ours else -1
        return Page(batches, Cursor(self._epoch, number + len(batches)), missed)

    def behind(self, cursor: Cursor) -> int:
        """Return how many bytes have come after a cursor and are still there."""
        with self._lock:
            count = max(0, min(self._last - cursor.number, len(self._batches)))
            newest = itertools.islice(reversed(self._batches), count)
            return sum(len(batch.data) for batch in newest)

    def search(self, query: Query, limit: int, before: Cursor | None = None) -> Found:
        """Return up to `limit` spans that a query asks for, before a cursor, the newest first."""
        with self._lock:
            batches, last = tuple(self._batches), self._last
        if before is not None and before.epoch != self._epoch:
            return Found((), None)
        spans: list[ResourceSpans] = []
        decoded = 0
        for number, batch in zip(range(last, 0, -1), reversed(batches), strict=False):
            if (before is not None and number > before.number) or not query.may_find(batch.traits):
                continue
            end = before.index if before is not None and number == before.number else None
            if end == 0:
                continue
            if decoded >= _MOST_DECODED:
                return Found(spans, Cursor(self._epoch, number, batch.spans))
            decoded += batch.spans
            for index, one in query.found_in(batch, end):
                spans.append(one)
                if len(spans) == limit:
                    return Found(spans, Cursor(self._epoch, number, index))
        return Found(spans, None)

    def trace(self, trace_id: bytes) -> Sequence[Batch]:
        """Return the batches that have spans of a trace, the oldest first."""
        with self._lock:
            return [one for one in self._batches if trace_id in one.traits.trace_ids]

    def report(self) -> StoreReport:
        """Return what is there now."""
        with self._lock:
            oldest = self._batches[0].traits.start_unix_ns if self._batches else None
            return StoreReport(
                spans=self._spans,
                batches=len(self._batches),
                bytes=self._bytes,
                most_bytes=self._most,
                added=self._added,
                evicted=self._added - self._spans,
                oldest_unix_ns=oldest,
            )
