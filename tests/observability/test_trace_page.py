"""The page of a trace, from files that hyperbox, or a collector, wrote."""

from __future__ import annotations

import json
from pathlib import Path

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ConfigError
from hyperbox.observability import attributes as names
from hyperbox.observability.otlp_file import read_spans
from hyperbox.observability.otlp_json import encode
from hyperbox.observability.spans import Attributes, ResourceSpans, Span, SpanLink, SpanResource
from hyperbox.observability.trace_page import page

_TRACE = bytes(range(16))
_RESOURCE = SpanResource({"process.executable.name": "<b>make</b>", "process.pid": 42})
_WINDOW: Attributes = {
    names.SPAN_KIND: "window",
    names.WINDOW_SYSCALLS: ["read", "openat"],
    names.WINDOW_COUNTS: [1000, 10],
    names.WINDOW_ERRORS: [0, 3],
    names.WINDOW_TIMED: [10, 10],
    names.WINDOW_SUM: [10_000, 90_000],
    names.WINDOW_MAX: [5000, 20_000],
}
_CALL: Attributes = {names.SPAN_KIND: "call", names.THREAD_ID: 42}
_LOSS: Attributes = {names.SPAN_KIND: "unattributed", f"{names.LOST}.ring_full": 7}
_T = 10**18
_PARENT = [SpanLink(_TRACE, b"parent--")]
_SPANS = [
    Span(_TRACE, b"life----", "<b>make</b>", _T, _T + 2 * 10**9, links=_PARENT),
    Span(_TRACE, b"window--", "window", _T, _T + 10**9, b"life----", _WINDOW),
    Span(
        _TRACE, b"call----", "openat", _T + 5, _T + 40_000_005, b"window--", _CALL, error="ENOENT"
    ),
    Span(_TRACE, b"lost----", "window", _T, _T, attributes=_LOSS),
]


def written(path: Path, batches: list[ResourceSpans]) -> Path:
    path.write_bytes(b"".join(encode([batch]) + b"\n" for batch in batches))
    return path


def test_a_page_has_the_time_line_the_counts_and_the_slowest(tmp_path: Path) -> None:
    path = written(tmp_path / "spans.jsonl", [ResourceSpans(_RESOURCE, _SPANS)])
    made = page(read_spans(path), "a trace")
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(made)
    text = " ".join(document.itertext())
    assert "1,010 system calls of 1 processes" in text
    assert "ring_full 7" in text
    # A thousand reads of 1 us are more than ten openat of 9 us.
    rows = [
        [cell.text for cell in row.iter("td")]
        for row in document.find(".//details").iter("tr")
        if row.find("td") is not None
    ]
    assert [row[:4] for row in rows] == [
        ["read", "1,000", None, "1 ms"],
        ["openat", "10", "3", "90 µs"],
    ]
    assert "40 ms openat ENOENT" in " ".join(text.split())
    assert "<b>" not in made.partition("<body>")[2]


def test_an_empty_trace_has_a_page(tmp_path: Path) -> None:
    assert "Nothing was traced" in page(read_spans(written(tmp_path / "none", [])), "empty")


@given(
    st.lists(
        st.builds(
            Span,
            st.binary(min_size=16, max_size=16),
            st.binary(min_size=8, max_size=8),
            st.text(max_size=9),
            st.integers(0, 2**62),
            st.integers(2**62, 2**63),
            st.binary(min_size=8, max_size=8),
            st.dictionaries(
                st.text(max_size=5),
                st.booleans()
                | st.integers(-(2**63), 2**63 - 1)
                | st.floats(allow_nan=False)
                | st.text(max_size=5)
                | st.binary(max_size=5)
                | st.lists(st.integers(-9, 9), max_size=3),
                max_size=3,
            ),
            error=st.text(max_size=5),
        ),
        max_size=3,
    )
)
def test_what_was_written_is_read_again(spans: list[Span]) -> None:
    batch = ResourceSpans(_RESOURCE, spans)
    text = encode([batch]).decode()
    (found,) = _read(text)
    assert encode([found]).decode() == text


def _read(text: str) -> list[ResourceSpans]:
    from tempfile import NamedTemporaryFile  # noqa: PLC0415

    with NamedTemporaryFile("w") as stream:
        stream.write(text)
        stream.flush()
        return list(read_spans(Path(stream.name)))


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{",
        "{}",
        '{"resourceSpans":7}',
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xy"}]}]}]}',
        '{"resourceSpans":[{"resource":{"attributes":[{"key":"a","value":{"odd":1}}]}}]}',
        "[" * 5000,
    ],
)
def test_what_is_not_a_trace_is_refused_in_one_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_text(f"{json.dumps({'resourceSpans': []})}\n{line}\n")
    with pytest.raises(ConfigError, match=r"line 2 is not OTLP JSON"):
        list(read_spans(path))
