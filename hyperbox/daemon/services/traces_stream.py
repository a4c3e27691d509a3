"""Streams of spans as they come: server-sent events, or a JSON object in each line.

Each reader pulls from the store at its own pace. One that falls too far behind is dropped,
with a last line that says so; with its cursor it may come again, and then learns what it missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from hyperbox.observability import otlp_json
from hyperbox.observability.batches import Batch
from hyperbox.observability.otlp_decoding import decode
from hyperbox.observability.otlp_protobuf import encode
from hyperbox.observability.span_query import Query
from hyperbox.observability.span_store import Cursor, Page, SpanStore

__all__ = ["EventLines", "JsonLines", "Lines", "Reader", "Readers"]

MOST_BEHIND = 4 << 20
"""Bytes that a reader may be behind the newest span."""

_AT_ONCE = 128 << 10  # bytes of batches between two looks at the clock and at the reader's lag
_MOST_READERS = 64
_HEARTBEAT_S = 10.0  # so that proxies keep the connection, and a reader knows that we live


class Lines(Protocol):
    """How a stream is written."""

    protobuf: bool
    """Whether spans come as protobuf; else as JSON."""

    def spans(self, encoded: bytes, cursor: Cursor) -> bytes:
        """Return what is sent for spans; `encoded` is a TracesData."""

    def notice(self, kind: str, said: dict[str, object], cursor: Cursor) -> bytes:
        """Return what is sent of something else: a gap, the end, a sign of life."""


class JsonLines:
    """A JSON object a line: TracesData with the cursor after it, or what else there is to say."""

    protobuf = False

    def spans(self, encoded: bytes, cursor: Cursor) -> bytes:
        """Return the text of spans; `encoded` is a TracesData object."""
        return encoded[:-1] + f',"cursor":"{cursor}"}}\n'.encode()

    def notice(self, kind: str, said: dict[str, object], cursor: Cursor) -> bytes:
        """Return the text of something else: a gap, the end, a sign of life."""
        return (json.dumps({kind: said, "cursor": str(cursor)}) + "\n").encode()


class EventLines:
    """Server-sent events (HTML standard, 9.2): ``Last-Event-ID`` is the cursor."""

    protobuf = False

    def spans(self, encoded: bytes, cursor: Cursor) -> bytes:
        """Return the text of spans; `encoded` is a TracesData object."""
        return f"id: {cursor}\nevent: spans\ndata: ".encode() + encoded + b"\n\n"

    def notice(self, kind: str, said: dict[str, object], cursor: Cursor) -> bytes:
        """Return the text of something else: a gap, the end, a sign of life."""
        if kind == "alive":
            return b": alive\n\n"
        return f"id: {cursor}\nevent: {kind}\ndata: {json.dumps(said)}\n\n".encode()


@dataclass(eq=False)
class Reader:
    """One client of a stream, in the event loop that serves it."""

    loop: asyncio.AbstractEventLoop
    changed: asyncio.Event

    def wake(self) -> None:
        """Let it look at the store; from any thread."""
        with contextlib.suppress(RuntimeError):  # its loop has been closed
            self.loop.call_soon_threadsafe(self.changed.set)


class Readers:
    """All clients that follow a store."""

    def __init__(self, store: SpanStore) -> None:
        self._store = store
        self._open: set[Reader] = set()
        self._ended = False
        self.dropped = 0
        """Clients that were dropped because they were too slow."""
        store.watch(self.wake)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def full(self) -> bool:
        """Whether as many follow as may."""
        return len(self._open) >= _MOST_READERS

    def wake(self) -> None:
        """Let all look at the store; from any thread."""
        for reader in tuple(self._open):
            reader.wake()

    def end(self) -> None:
        """Tell all that it is over; from any thread."""
        self._ended = True
        self.wake()

    async def follow(self, cursor: Cursor, query: Query, lines: Lines) -> AsyncIterator[bytes]:
        """Yield what comes after a cursor, without end unless it is too slow or all is over."""
        reader = Reader(asyncio.get_running_loop(), asyncio.Event())
        self._open.add(reader)
        try:
            began = False
            most = max(MOST_BEHIND, self._store.behind(cursor))  # who resumes has to catch up
            while not self._ended:
                reader.changed.clear()
                page = self._store.after(cursor, _AT_ONCE)
                if began and (page.missed or self._store.behind(cursor) > most):
                    self.dropped += 1
                    yield lines.notice("dropped", {"reason": "too slow"}, cursor)
                    return
                if page.missed:
                    yield lines.notice("gap", _gap(page), cursor)
                began = True
                cursor = page.cursor
                text = _text(page.batches, query, lines, cursor)
                if text:
                    yield text
                elif not page.batches and not await _changed(reader):
                    yield lines.notice("alive", {}, cursor)
            yield lines.notice("end", {"reason": "the daemon ends"}, cursor)
        finally:
            self._open.discard(reader)


def _gap(page: Page) -> dict[str, object]:
    """Say what a reader has missed: how many batches, if its cursor is of this store."""
    if page.missed < 0:
        return {"reason": "the cursor is of an earlier daemon"}
    return {"reason": "no longer kept", "batches": page.missed}


def _text(batches: Sequence[Batch], query: Query, lines: Lines, cursor: Cursor) -> bytes:
    """Return what is sent for batches, each with a cursor of its own."""
    parts = []
    for place, batch in enumerate(batches, cursor.number - len(batches) + 1):
        encoded = _encoded(batch, query, lines.protobuf)
        if encoded:
            parts.append(lines.spans(encoded, Cursor(cursor.epoch, place)))
    return b"".join(parts)


@lru_cache(maxsize=64)  # readers who follow the newest spans ask for the same
def _encoded(batch: Batch, query: Query, protobuf: bool) -> bytes:
    """Return what of a batch is asked for; nothing if there is nothing."""
    if protobuf and query == Query():
        return batch.data
    found = decode(batch.data) if query == Query() else query.filtered(batch)
    if not found:
        return b""
    return encode(found) if protobuf else otlp_json.encode(found)


async def _changed(reader: Reader) -> bool:
    """Wait for something to come; False if nothing did for a while."""
    try:
        await asyncio.wait_for(reader.changed.wait(), _HEARTBEAT_S)
    except TimeoutError:
        return False
    return True
