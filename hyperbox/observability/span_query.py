"""What a search for spans asks: of which process, call, error, duration and time. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hyperbox.observability.batches import Batch, Traits, calls_of, errors_of
from hyperbox.observability.otlp_decoding import decode
from hyperbox.observability.spans import ResourceSpans, Span

__all__ = ["Query"]


@dataclass(frozen=True)
class Query:
    """Conditions that all have to hold; one that is None holds for every span.

    `container` may be the first characters of an id. `least_ns` is a duration; `since_unix_ns`
    and `until_unix_ns` are a stretch of time that a span has to share.
    """

    pid: int | None = None
    container: str | None = None
    call: str | None = None
    error: str | None = None
    least_ns: int | None = None
    since_unix_ns: int | None = None
    until_unix_ns: int | None = None
    trace_id: bytes | None = None

    def may_find(self, traits: Traits) -> bool:
        """Return whether a batch may have such a span."""
        return (
            (self.pid is None or self.pid == traits.pid)
            and (self.container is None or traits.container.startswith(self.container))
            and (self.call is None or self.call in traits.calls)
            and (self.error is None or self.error in traits.errors)
            and (self.least_ns is None or self.least_ns <= traits.longest_ns)
            and (self.since_unix_ns is None or self.since_unix_ns <= traits.end_unix_ns)
            and (self.until_unix_ns is None or self.until_unix_ns >= traits.start_unix_ns)
            and (self.trace_id is None or self.trace_id in traits.trace_ids)
        )

    def holds(self, span: Span) -> bool:
        """Return whether a span is one; its resource's conditions hold for its whole batch."""
        duration_ns = span.end_unix_ns - span.start_unix_ns
        return (
            (self.call is None or self.call in calls_of(span))
            and (self.error is None or self.error in errors_of(span))
            and (self.least_ns is None or self.least_ns <= duration_ns)
            and (self.since_unix_ns is None or self.since_unix_ns <= span.end_unix_ns)
            and (self.until_unix_ns is None or self.until_unix_ns >= span.start_unix_ns)
            and (self.trace_id is None or self.trace_id == span.trace_id)
        )

    def found_in(self, batch: Batch, end: int | None = None) -> Iterator[tuple[int, ResourceSpans]]:
        """Yield the spans of a batch below index `end` with their index, the last one first."""
        for whole in decode(batch.data):
            spans = list(enumerate(whole.spans))[:end]
            for index, span in reversed(spans):
                if self.holds(span):
                    yield index, ResourceSpans(whole.resource, [span])

    def filtered(self, batch: Batch) -> list[ResourceSpans]:
        """Return what of a batch is asked for, in order."""
        if not self.may_find(batch.traits):
            return []
        kept = [
            ResourceSpans(whole.resource, [span for span in whole.spans if self.holds(span)])
            for whole in decode(batch.data)
        ]
        return [whole for whole in kept if whole.spans]
