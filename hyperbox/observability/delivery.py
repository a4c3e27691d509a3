"""What became of a request to an OTLP peer, by the rules of the OTLP specification. Pure.

"OTLP/gRPC Response", "OTLP/HTTP Response" and "Throttling" of the specification (1.x): success is
status OK or 2xx only, partial success is never sent again, and only the named codes are retried.
"""

from __future__ import annotations

import email.utils
import gzip
import json
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from hyperbox.observability.protobuf_wire import MalformedMessage, fields, signed, text

__all__ = ["Backoff", "Delivered", "Outcome", "Refused", "Retry", "of_grpc", "of_http"]

_HTTP_RETRYABLE = (429, 502, 503, 504)
_OK, _RESOURCE_EXHAUSTED = 0, 8
# CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
_GRPC_RETRYABLE = (1, 4, 10, 11, 14, 15)
_RETRY_INFO = "google.rpc.RetryInfo"
_MOST_TEXT = 200  # characters of what a peer says, in our words
_MOST_BODY = 1 << 20  # bytes of an answer, unpacked
_LONGEST_WAIT_S = 3600.0  # of a peer that wants to be left alone


@dataclass(frozen=True)
class Delivered:
    """The peer has taken the request; of its spans it rejected some for good."""

    rejected: int = 0
    message: str = ""


@dataclass(frozen=True)
class Retry:
    """It may take the same request later: after `after_s` seconds, where it says so."""

    reason: str
    after_s: float | None = None


@dataclass(frozen=True)
class Refused:
    """It will never take this request; `too_large`: it would take a smaller one."""

    reason: str
    too_large: bool = False


Outcome = Delivered | Retry | Refused


def of_http(status: int, headers: Mapping[str, str], body: bytes, *, now_s: float) -> Outcome:
    """Return what an HTTP answer means.

    Parameters
    ----------
    headers
        Names in lower case.
    now_s
        Unix time, which a Retry-After with a date is counted from.
    """
    body = _unpacked(headers.get("content-encoding", ""), body)
    as_json = headers.get("content-type", "").partition(";")[0].strip() == "application/json"
    if 200 <= status < 300:
        return _delivered_json(body) if as_json else _delivered(body)
    said = _said_json(body) if as_json else _said(body)
    reason = f"HTTP status {status}" + (f": {said}" if said else "")
    if status in _HTTP_RETRYABLE:
        return Retry(reason, _retry_after(headers.get("retry-after", ""), now_s))
    return Refused(reason, too_large=status == 413)


def of_grpc(code: int, message: str, details: bytes, response: bytes) -> Outcome:
    """Return what a gRPC answer means.

    Parameters
    ----------
    code, message
        Status and its text.
    details
        A google.rpc.Status from the trailer ``grpc-status-details-bin``; may be empty.
    response
        An ExportTraceServiceResponse, if the status is OK.
    """
    if code == _OK:
        return _delivered(response)
    reason = f"gRPC status {code}" + (f": {_short(message)}" if message else "")
    after_s = _retry_info(details)
    if code in _GRPC_RETRYABLE or (code == _RESOURCE_EXHAUSTED and after_s is not None):
        return Retry(reason, after_s)
    # gRPC has no status of its own for it: servers refuse a message by its length with this one.
    return Refused(reason, too_large=code == _RESOURCE_EXHAUSTED)


class Backoff:
    """Waits between tries: doubled each time, with full jitter above half; the peer's wish counts.

    Parameters
    ----------
    first_s, most_s
        The first wait, and the longest, in seconds.
    """

    def __init__(
        self, first_s: float = 1.0, most_s: float = 30.0, jitter: random.Random | None = None
    ) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, hides nothing
        self._tries = 0

    def wait_s(self, after_s: float | None) -> float:
        """Return the seconds until the next try, not less than what the peer asks for."""
        usual = min(self._most_s, self._first_s * 2.0 ** min(self._tries, 30))
        self._tries += 1
        own = usual * (0.5 + self._jitter.random() / 2)
        return own if after_s is None else min(max(own, after_s), _LONGEST_WAIT_S)

    def reset(self) -> None:
        """Begin anew: a request has been answered for good."""
        self._tries = 0


def _delivered(body: bytes) -> Delivered:
    """Read an ExportTraceServiceResponse; one that cannot be read rejects nothing we know of."""
    rejected, message = 0, ""
    try:
        for number, content in fields(body):
            if number == 1 and isinstance(content, bytes):
                for inner, value in fields(content):
                    if inner == 1 and isinstance(value, int):
                        rejected = max(0, signed(value))
                    elif inner == 2 and isinstance(value, bytes):
                        message = _short(text(value))
    except MalformedMessage as error:
        return Delivered(0, f"the answer cannot be read: {error}")
    return Delivered(rejected, message)


def _delivered_json(body: bytes) -> Delivered:
    try:
        partial = json.loads(body or b"{}").get("partialSuccess") or {}
        rejected = int(partial.get("rejectedSpans") or 0)
        return Delivered(max(0, rejected), _short(str(partial.get("errorMessage") or "")))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return Delivered(0, "the answer cannot be read")


def _said(body: bytes) -> str:
    """Return the message of a google.rpc.Status; nothing if it is none."""
    try:
        found = [content for number, content in fields(body) if number == 2]
    except MalformedMessage:
        return ""
    return _short(text(found[-1])) if found and isinstance(found[-1], bytes) else ""


def _said_json(body: bytes) -> str:
    try:
        return _short(str(json.loads(body).get("message") or ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _retry_info(status: bytes) -> float | None:
    """Return the delay of a RetryInfo among the details of a google.rpc.Status, in seconds."""
    try:
        for number, detail in fields(status):
            if number != 3 or not isinstance(detail, bytes):
                continue
            packed = dict(fields(detail))
            url, value = packed.get(1, b""), packed.get(2, b"")
            if isinstance(url, bytes) and text(url).rpartition("/")[2] == _RETRY_INFO:
                delay = dict(fields(value if isinstance(value, bytes) else b"")).get(1, b"")
                return _duration_s(delay if isinstance(delay, bytes) else b"")
    except MalformedMessage:
        return None
    return None


def _duration_s(message: bytes) -> float:
    parts = dict(fields(message))
    seconds, nanoseconds = parts.get(1, 0), parts.get(2, 0)
    if isinstance(seconds, bytes) or isinstance(nanoseconds, bytes):
        raise MalformedMessage("no google.protobuf.Duration")
    return max(0.0, signed(seconds) + signed(nanoseconds) / 1e9)


def _retry_after(header: str, now_s: float) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3); None if it says nothing."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.fromtimestamp(now_s, UTC)).total_seconds())


def _unpacked(encoding: str, body: bytes) -> bytes:
    if encoding.strip().lower() != "gzip":
        return body
    try:
        unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
        return unpacking.decompress(body, _MOST_BODY)
    except (zlib.error, gzip.BadGzipFile):
        return b""


def _short(said: str) -> str:
    return " ".join(said.split())[:_MOST_TEXT]
