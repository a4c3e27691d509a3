"""The store keeps its bound, and searches find what a plain look at every span finds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.observability.batches import cut
from hyperbox.observability.otlp_decoding import decode
from hyperbox.observability.span_query import Query
from hyperbox.observability.span_store import Cursor, SpanStore
from hyperbox.observability.spans import ResourceSpans, Span, SpanResource
from tests.observability.peers import batch

CALLS = ("read", "openat")
ERRORS = ("ENOENT", "EAGAIN")
NUMBERS = itertools.count(1)

spans = st.builds(
    lambda trace, start, duration, call, error: Span(
        trace,
        next(NUMBERS).to_bytes(8, "big"),
        call,
        start,
        start + duration,
        attributes={"hyperbox.syscall.name": call} | ({"error.type": error} if error else {}),
    ),
    st.sampled_from([b"a" * 16, b"b" * 16]),
    st.integers(1, 10),
    st.integers(0, 10),
    st.sampled_from(CALLS),
    st.sampled_from((*ERRORS, "")),
)
resources = st.builds(
    lambda pid, container: SpanResource({"process.pid": pid, "container.id": container}),
    st.integers(1, 3),
    st.sampled_from(["abc", "abd", ""]),
)
batches = st.lists(
    st.builds(ResourceSpans, resources, st.lists(spans, min_size=1, max_size=5)), max_size=8
)
maybe_number = st.one_of(st.none(), st.integers(0, 12))
queries = st.builds(
    Query,
    st.one_of(st.none(), st.integers(1, 3)),
    st.sampled_from([None, "ab", "abc"]),
    st.sampled_from([None, *CALLS]),
    st.sampled_from([None, *ERRORS]),
    maybe_number,
    maybe_number,
    maybe_number,
    st.sampled_from([None, b"a" * 16]),
)


def expected(found: Sequence[ResourceSpans], query: Query) -> list[bytes]:
    """Ids of the spans that a query asks for, the newest first."""
    ids = []
    for whole in found:
        resource = whole.resource.attributes
        for span in whole.spans:
            conditions = [
                query.pid in (None, resource["process.pid"]),
                str(resource["container.id"]).startswith(query.container or ""),
                query.call in (None, span.name),
                query.error in (None, span.attributes.get("error.type")),
                span.end_unix_ns - span.start_unix_ns >= (query.least_ns or 0),
                span.end_unix_ns >= (query.since_unix_ns or 0),
                query.until_unix_ns is None or span.start_unix_ns <= query.until_unix_ns,
                query.trace_id in (None, span.trace_id),
            ]
            if all(conditions):
                ids.append(span.span_id)
    return ids[::-1]


@settings(max_examples=60)
@given(batches, queries, st.integers(1, 4))
def test_pages_of_a_search_are_all_that_there_is(
    added: list[ResourceSpans], query: Query, limit: int
) -> None:
    store = SpanStore()
    for one in added:
        store.add(cut([one])[0])
    ids: list[bytes] = []
    cursor = None
    while True:
        found = store.search(query, limit, cursor)
        assert len(found.spans) <= limit
        ids += [span.span_id for whole in found.spans for span in whole.spans]
        if found.next is None:
            break
        cursor = Cursor.parse(str(found.next))
        store.add([batch(9)])  # what comes meanwhile does not shift the pages
    assert ids == expected(added, query)


def test_the_oldest_make_room_and_a_reader_hears_of_it() -> None:
    store = SpanStore(20_000)
    start = store.newest()
    for number in range(100):
        store.add([batch(number, spans=2)])
        assert store.report().bytes <= 20_000
    report = store.report()
    assert report.added == 200
    assert report.spans + report.evicted == 200
    page = store.after(start, 1 << 20)
    assert page.missed == 100 - len(page.batches) == report.evicted // 2
    assert page.cursor == store.newest()
    assert store.after(page.cursor, 1 << 20).batches == []
    pids = [one.traits.pid for one in page.batches]
    assert pids == list(range(page.missed, 100))
    small = store.after(store.oldest(), 1)
    assert [one.traits.pid for one in small.batches] == pids[:1]
    assert store.behind(small.cursor) == sum(len(one.data) for one in page.batches[1:])


def test_a_cursor_of_another_store_begins_anew() -> None:
    store = SpanStore()
    store.add([batch(1)])
    page = store.after(Cursor(1, 5), 1 << 20)
    assert (page.missed, len(page.batches)) == (-1, 1)
    assert store.search(Query(), 5, Cursor(1, 5)).next is None


def test_whoever_watches_hears_of_additions_until_it_ends() -> None:
    store = SpanStore()
    heard: list[int] = []
    end = store.watch(lambda: heard.append(1))
    store.add([batch(1)])
    end()
    store.add([batch(2)])
    assert heard == [1]


def test_a_trace_is_found_whole() -> None:
    store = SpanStore()
    store.add([batch(1), batch(2)])
    found = [decode(one.data)[0].spans[0].name for one in store.trace(b"t" * 16)]
    assert found == ["read1", "read2"]
    assert store.trace(b"x" * 16) == []


@pytest.mark.parametrize("text", ["", "1", "x-y", "-", "1-" + "f" * 17, "1-2.3.4", "-1-2"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Cursor.parse(text)
