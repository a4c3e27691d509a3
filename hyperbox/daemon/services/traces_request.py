"""What requests for traces may ask, and the schemas of what they get."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request

from hyperbox.daemon.service import Parameter, Schema
from hyperbox.observability.span_query import Query
from hyperbox.observability.span_store import Cursor

__all__ = [
    "AFTER",
    "CONDITIONS",
    "CURSOR_HEADER",
    "JSON",
    "MISSED_HEADER",
    "MOST_SPANS",
    "NDJSON",
    "PAGE",
    "PROTOBUF",
    "SPANS",
    "SSE",
    "STATS",
    "TRACES_DATA",
    "TRACE_ID",
    "cursor_from",
    "cursor_of",
    "number_of",
    "query_of",
    "trace_id_of",
]

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
CURSOR_HEADER = "hyperbox-cursor"
MISSED_HEADER = "hyperbox-missed"
MOST_SPANS = 1000

_MOST_NUMBER = (1 << 63) - 1
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_WHOLE: Schema = {"type": "integer", "minimum": 0, "maximum": _MOST_NUMBER}
_WORD: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,128}$"}
_CURSOR: Schema = {
    "type": "string",
    "pattern": "^[0-9a-f]{1,16}-[0-9a-f]{1,16}(\\.[0-9a-f]{1,16})?$",
}
_TRACE: Schema = {"type": "string", "pattern": "^[0-9A-Fa-f]{32}$"}

CONDITIONS: Sequence[Parameter] = (
    Parameter("process", "Number of the process (process.pid).", _WHOLE),
    Parameter("container", "Id of the container, or its first characters.", _WORD),
    Parameter("call", "Name of a system call, such as openat.", _WORD),
    Parameter("error", "Name of an error, such as ENOENT.", _WORD),
    Parameter("min_duration_ns", "Only spans that last as long, in nanoseconds.", _WHOLE),
    Parameter("since_unix_ns", "Only spans that end at this time or later.", _WHOLE),
    Parameter("until_unix_ns", "Only spans that start at this time or earlier.", _WHOLE),
    Parameter("trace", "Only spans of this trace, 32 hex digits.", _TRACE),
)
PAGE: Sequence[Parameter] = (
    Parameter(
        "limit",
        "How many spans to return at most.",
        {"type": "integer", "minimum": 1, "maximum": MOST_SPANS, "default": 100},
    ),
    Parameter("before", "Cursor of the page before: its `next`.", _CURSOR),
)
AFTER = Parameter(
    "after", "Cursor of what came last; by default only what comes from now on.", _CURSOR
)
TRACE_ID = Parameter("trace_id", "32 hex digits.", _TRACE)

TRACES_DATA: Schema = {
    "type": "object",
    "description": "TracesData in OTLP's JSON mapping.",
    "properties": {"resourceSpans": {"type": "array", "items": {"type": "object"}}},
    "required": ["resourceSpans"],
}
SPANS: Schema = {
    **TRACES_DATA,
    "properties": {
        "resourceSpans": {"type": "array", "items": {"type": "object"}},
        "next": {"type": ["string", "null"], "description": "Where to go on; null at the end."},
    },
    "required": ["resourceSpans", "next"],
}
_COUNTS: Schema = {"type": "object", "additionalProperties": {"type": "integer"}}
STATS: Schema = {
    "type": "object",
    "properties": {
        "available": {"type": "boolean"},
        "reason": {"type": "string"},
        "hint": {"type": "string"},
        "source": {"type": "object", "description": "What the tracer says: mode, cost, loss."},
        "store": {"type": "object", "description": "Spans that are kept, and their bytes."},
        "export": {
            "type": ["object", "null"],
            "description": "What became of exported spans; null if none are exported.",
        },
        "lost": {**_COUNTS, "description": "Spans and calls that were lost, by cause."},
        "readers": {"type": "integer", "description": "Streams that are open."},
        "dropped_readers": {"type": "integer", "description": "Streams ended as too slow."},
    },
    "required": ["available"],
    "additionalProperties": False,
}


def query_of(given: Mapping[str, str]) -> Query:
    """Return the conditions of a request, of their texts by `CONDITIONS`.

    Raises
    ------
    HTTPException
        400 for a value that is none.
    """
    numbers = {
        name: None if (text := given.get(name)) is None else number_of(name, text)
        for name in ("process", "min_duration_ns", "since_unix_ns", "until_unix_ns")
    }
    words = {name: _word(given, name) for name in ("container", "call", "error")}
    trace = given.get("trace")
    return Query(
        pid=numbers["process"],
        container=words["container"],
        call=words["call"],
        error=words["error"],
        least_ns=numbers["min_duration_ns"],
        since_unix_ns=numbers["since_unix_ns"],
        until_unix_ns=numbers["until_unix_ns"],
        trace_id=None if trace is None else trace_id_of(trace),
    )


def number_of(name: str, text: str, least: int = 0, most: int = _MOST_NUMBER) -> int:
    """Return a whole number within bounds; HTTPException 400 if it is none."""
    # A length first: int() of a long text takes time that grows with its square.
    if text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most:
        return int(text)
    raise HTTPException(400, f"{name} is a whole number from {least} to {most}")


def cursor_of(request: Request, name: str) -> Cursor | None:
    """Return the cursor that a parameter has, if it is there; HTTPException 400 if it is none."""
    text = request.query_params.get(name)
    return None if text is None else cursor_from(name, text)


def cursor_from(name: str, text: str) -> Cursor:
    """Return the cursor that a text stands for; HTTPException 400 if it is none."""
    try:
        return Cursor.parse(text)
    except ValueError:
        raise HTTPException(400, f"{name} is a cursor from an earlier answer") from None


def trace_id_of(text: str) -> bytes:
    """Return a trace's id; HTTPException 400 if it is none."""
    if not re.fullmatch(r"[0-9A-Fa-f]{32}", text):
        raise HTTPException(400, "a trace id has 16 bytes, that is 32 hex digits")
    return bytes.fromhex(text)


def _word(given: Mapping[str, str], name: str) -> str | None:
    text = given.get(name)
    if text is not None and not _NAME.fullmatch(text):
        raise HTTPException(400, f"{name} has letters, digits, `_`, `.`, `:` and `-` only")
    return text
