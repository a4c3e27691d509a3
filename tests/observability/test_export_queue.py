"""The queue keeps its bound and its order, and loses nothing uncounted."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hyperbox.observability.batches import Batch, Traits
from hyperbox.observability.export_queue import ExportQueue

MOST = 100
TRAITS = Traits(frozenset(), frozenset(), frozenset(), 0, 0, 0)


class QueueMachine(RuleBasedStateMachine):
    """Any order of what an exporter does."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = ExportQueue(MOST)
        self.added = self.sent = self.number = 0
        self.last_sent = -1
        self.taken: list[Batch] = []

    @rule(size=st.integers(8, 130), spans=st.integers(1, 9))
    def add(self, size: int, spans: int) -> None:
        self.queue.add(Batch(self.number.to_bytes(8, "big").ljust(size), spans, TRAITS))
        self.number += 1
        self.added += spans

    @rule(most=st.integers(1, 150))
    def take(self, most: int) -> None:
        waiting = self.queue.waiting
        self.taken = list(self.queue.take(most)) if not self.taken else self.taken
        if waiting:
            assert self.taken
            assert len(self.taken) == 1 or sum(len(one.data) for one in self.taken) <= most

    @rule()
    def done(self) -> None:
        for batch in self.taken:
            number = int.from_bytes(batch.data[:8], "big")
            assert number > self.last_sent
            self.last_sent = number
            self.sent += batch.spans
        self.taken = []
        self.queue.done()

    @rule()
    def give_back(self) -> None:
        self.taken = []
        self.queue.give_back()

    @invariant()
    def nothing_is_lost_uncounted(self) -> None:
        assert self.queue.bytes <= MOST
        assert self.added == self.sent + self.queue.spans + self.queue.dropped


TestQueue = QueueMachine.TestCase
