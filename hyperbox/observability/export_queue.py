"""The queue before an exporter: bounded by bytes, the oldest dropped first, everything counted.

Pure; whoever shares it among threads holds a lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from hyperbox.observability.batches import Batch

__all__ = ["ExportQueue"]


class ExportQueue:
    """Batches that wait to be sent.

    Parameters
    ----------
    most_bytes
        How much waits at most, including what has been taken and is not done.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._waiting: deque[Batch] = deque()
        self._taken: list[Batch] = []
        self.bytes = 0
        """Bytes that wait or are under way."""
        self.spans = 0
        """Spans that wait or are under way."""
        self.dropped = 0
        """Spans that were dropped because the queue was full."""

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._waiting)

    def add(self, batch: Batch) -> None:
        """Append a batch; drop the oldest that wait, or the new one if all else is under way."""
        self._waiting.append(batch)
        self.bytes += len(batch.data)
        self.spans += batch.spans
        while self.bytes > self._most and self._waiting:
            oldest = self._waiting.popleft()
            self._forget(oldest)
            self.dropped += oldest.spans

    def take(self, most_bytes: int) -> Sequence[Batch]:
        """Take the oldest batches, `most_bytes` of them together; one at least, if any waits."""
        size = 0
        while self._waiting and (
            not self._taken or size + len(self._waiting[0].data) <= most_bytes
        ):
            size += len(self._waiting[0].data)
            self._taken.append(self._waiting.popleft())
        return tuple(self._taken)

    def done(self) -> None:
        """Forget what was taken: its fate is known."""
        for batch in self._taken:
            self._forget(batch)
        self._taken.clear()

    def give_back(self) -> None:
        """Put what was taken back in its place, to be taken again, or dropped as the oldest."""
        self._waiting.extendleft(reversed(self._taken))
        self._taken.clear()

    def _forget(self, batch: Batch) -> None:
        self.bytes -= len(batch.data)
        self.spans -= batch.spans
