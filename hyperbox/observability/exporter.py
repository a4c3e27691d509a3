"""Exports batches to an OTLP peer from its own thread, and counts what becomes of each span."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from hyperbox.observability.batches import Batch
from hyperbox.observability.delivery import Backoff, Delivered, Outcome, Refused, Retry
from hyperbox.observability.export_queue import ExportQueue
from hyperbox.observability.export_target import ExportProtocol, ExportTarget

__all__ = [
    "LARGEST_REQUEST",
    "QUEUE_BYTES",
    "ExportReport",
    "ExportTransport",
    "Exporter",
    "exporter_to",
]

QUEUE_BYTES = 8 << 20
"""What waits for a peer at most, in bytes."""

LARGEST_REQUEST = (4 << 20) - (64 << 10)
"""Bytes of a request before compression: gRPC servers take 4 MiB unless they are asked to."""

_LEAST_REQUEST = 64 << 10  # bytes: below it a peer that finds requests too large finds all so
_LINGER_S = 0.05  # for more to send together


class ExportTransport(Protocol):
    """Sends one request at a time."""

    def send(self, batches: Sequence[Batch]) -> Outcome:
        """Send batches as one request and wait for the answer, for as long as it is set to."""

    def close(self) -> None:
        """End the connection; a request under way in another thread ends soon."""


@dataclass(frozen=True)
class ExportReport:
    """What became of spans. Their sum, with those that wait, is what was added.

    `exported` were taken by the peer, `rejected` by it as part of a request that it took,
    `refused` with their whole request, `dropped_full` and `dropped_at_end` never left: the queue
    was full, or the exporter was closed. `waiting` and `waiting_bytes` are in the queue.
    """

    exported: int = 0
    rejected: int = 0
    refused: int = 0
    dropped_full: int = 0
    dropped_at_end: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    requests: int = 0
    retries: int = 0
    trouble: str = ""
    """What the peer said last, unless that was success."""


class Exporter:
    """Sends what is added, in order, until it is closed.

    Parameters
    ----------
    transport
        Is the exporter's from now on.
    queue_bytes
        How much waits for the peer at most; then the oldest is dropped.
    largest_request
        Bytes of a request; halved when the peer finds one too large.
    """

    def __init__(
        self,
        transport: ExportTransport,
        *,
        queue_bytes: int = QUEUE_BYTES,
        largest_request: int = LARGEST_REQUEST,
        backoff: Backoff | None = None,
    ) -> None:
        self._transport = transport
        self._queue = ExportQueue(queue_bytes)
        # A request under way cannot be dropped: it must leave a part of the queue to wait in.
        self._largest = min(largest_request, queue_bytes // 2)
        self._backoff = backoff or Backoff()
        self._changed = threading.Condition()
        self._deadline = float("inf")  # for everything to be sent: it is being closed
        self._over = False
        self._report = ExportReport()
        self._thread = threading.Thread(target=self._run, name="otlp-export", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def add(self, batches: Sequence[Batch]) -> None:
        """Queue batches; never waits for the peer."""
        with self._changed:
            for batch in batches:
                self._queue.add(batch)
            if self._over:
                self._drop_rest()
            self._changed.notify_all()

    def close(self, timeout_s: float = 0.0) -> ExportReport:
        """End, after sending what waits for at most `timeout_s`; what is left is dropped."""
        with self._changed:
            self._deadline = time.monotonic() + timeout_s
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._transport.close()
        with self._changed:
            self._over = True  # an answer that comes after this is of no account
            self._drop_rest()
        return self.report()

    def report(self) -> ExportReport:
        """Return what has become of the spans until now; from any thread."""
        with self._changed:
            return replace(
                self._report,
                dropped_full=self._queue.dropped,
                waiting=self._queue.spans,
                waiting_bytes=self._queue.bytes,
            )

    def _run(self) -> None:
        while self._awaited():
            with self._changed:
                taken = self._queue.take(self._largest)
            if taken:
                outcome = self._outcome(taken)
                with self._changed:
                    pause_s = 0.0 if self._over else self._settled(taken, outcome)
                    self._pause(pause_s)

    def _awaited(self) -> bool:
        """Wait until there is something to send, and shortly for more; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue.waiting or self._closing)
            if not self._closing and self._queue.bytes < self._largest:
                full = self._largest
                self._changed.wait_for(
                    lambda: self._closing or self._queue.bytes >= full, _LINGER_S
                )
            late = time.monotonic() > self._deadline
            return not self._over and not late and (self._queue.waiting or not self._closing)

    def _outcome(self, taken: Sequence[Batch]) -> Outcome:
        try:
            return self._transport.send(taken)
        except Exception as error:  # the thread must outlive a bug, and its spans be counted
            return Refused(f"a bug: {error!r}")

    def _settled(self, taken: Sequence[Batch], outcome: Outcome) -> float:
        """Count what became of a request; return the seconds to wait before the next one."""
        spans, known = sum(batch.spans for batch in taken), self._report
        if isinstance(outcome, Retry):
            self._queue.give_back()
            self._report = replace(
                known,
                requests=known.requests + 1,
                retries=known.retries + 1,
                trouble=outcome.reason,
            )
            return self._backoff.wait_s(outcome.after_s)
        self._queue.done()
        self._backoff.reset()
        if isinstance(outcome, Delivered):
            rejected = min(outcome.rejected, spans)  # a peer may count as it likes
            self._report = replace(
                known,
                requests=known.requests + 1,
                exported=known.exported + spans - rejected,
                rejected=known.rejected + rejected,
                trouble=outcome.message,
            )
            return 0.0
        if outcome.too_large:
            self._largest = max(self._largest // 2, _LEAST_REQUEST)
        self._report = replace(
            known,
            requests=known.requests + 1,
            refused=known.refused + spans,
            trouble=outcome.reason,
        )
        return 0.0

    def _pause(self, seconds: float) -> None:
        """Wait that long, or until the exporter has to be done: never shorter for more spans."""
        until = time.monotonic() + seconds
        while (rest := min(until, self._deadline) - time.monotonic()) > 0:
            self._changed.wait(rest)

    @property
    def _closing(self) -> bool:
        return self._deadline < float("inf")

    def _drop_rest(self) -> None:
        """Count everything in the queue as dropped at the end."""
        known = self._report
        self._report = replace(known, dropped_at_end=known.dropped_at_end + self._queue.spans)
        self._queue.give_back()
        while self._queue.take(0):
            self._queue.done()


def exporter_to(target: ExportTarget) -> Exporter:
    """Return an exporter to a collector, not started yet.

    Raises
    ------
    ConfigError
        If a certificate or key cannot be read.
    """
    if target.protocol is ExportProtocol.GRPC:
        from hyperbox.observability.export_grpc import GrpcTransport  # noqa: PLC0415 # an extra

        return Exporter(GrpcTransport(target))
    from hyperbox.observability.export_http import HttpTransport  # noqa: PLC0415 # TLS is slow to load

    return Exporter(HttpTransport(target))
