"""Fetching the rest of an image in the background, so that no process is needed any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from hyperbox.errors import WorkloadError
from hyperbox.storage.lazy.chunk_index import Chunk
from hyperbox.storage.lazy.lazy_image import LazyImage

__all__ = ["Completion"]

_BATCH = 4 << 20  # stored bytes of one request
_LONGEST_PAUSE_S = 60.0


class Completion:
    """A thread that fetches what an image lacks, at a bounded rate, after what readers need.

    Parameters
    ----------
    rate
        Stored bytes a second at most; 0 for as fast as it goes.
    then
        Called in the thread once all chunks are there and marked on disk.
    """

    def __init__(
        self, image: LazyImage, *, rate: int = 0, then: Callable[[], None] = lambda: None
    ) -> None:
        self._image = image
        self._rate = rate
        self._then = then
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lazy-completion", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, before all is there as well; waits for the request that runs."""
        self._ending.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def wait(self) -> None:
        """Wait until all is there, or it was stopped."""
        self._thread.join()

    def _run(self) -> None:
        pause = 1.0
        while not self._ending.is_set():
            absent = self._image.cached.absent()
            if not absent:
                self._image.flush()
                self._then()
                return
            try:
                self._fetch(absent)
                pause = 1.0
            except WorkloadError:  # the source is away: readers get an error, this waits
                self._ending.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _fetch(self, absent: Sequence[Chunk]) -> None:
        batch: list[Chunk] = []
        for chunk in absent:
            if batch and sum(one.stored_length for one in batch) + chunk.stored_length > _BATCH:
                self._paced(batch)
                batch = []
            if self._ending.is_set():
                return
            batch.append(chunk)
        self._paced(batch)

    def _paced(self, batch: Sequence[Chunk]) -> None:
        began = time.monotonic()
        self._image.fetch_for_later(batch)
        if self._rate:
            due = sum(chunk.stored_length for chunk in batch) / self._rate
            self._ending.wait(max(due - (time.monotonic() - began), 0))
