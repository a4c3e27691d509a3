"""Refusals: one JSON shape for all of them, problem details after RFC 9457."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from hyperbox.daemon.service import Schema

__all__ = [
    "DETAILS",
    "MEDIA_TYPE",
    "SCHEMA",
    "body",
    "explain",
    "explain_bug",
    "explain_end",
    "response",
]

MEDIA_TYPE = "application/problem+json"

SCHEMA: Schema = {
    "type": "object",
    "description": "Problem details (RFC 9457); about:blank says that the status says it all.",
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong with this request."},
    },
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
}

DETAILS = {
    400: "this is not a request of HTTP/1.1",
    404: "nothing is here; GET / lists what there is",
    413: "the request's body is too long",
    431: "the request's line and headers are too long",
    501: "of transfer encodings only chunked is known",
}
"""What refusals say that no endpoint has words for."""


def body(status: int, detail: str) -> bytes:
    """Return the body of a refusal."""
    title = HTTPStatus(status).phrase
    found = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return json.dumps(found).encode()


def response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a refusal as a response."""
    return Response(body(status, detail), status, headers, media_type=MEDIA_TYPE)


async def explain(_request: Request, error: Exception) -> Response:
    """Turn the web framework's refusals, and the services' own, into the one shape."""
    assert isinstance(error, HTTPException)
    said = error.detail if error.detail != HTTPStatus(error.status_code).phrase else ""
    detail = said or DETAILS.get(error.status_code, said) or "refused"
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        names = sorted(headers["Allow"].split(", "))
        headers["Allow"] = ", ".join(names)
        *others, last = names
        detail = f"this path answers {', '.join(others)}{' and ' if others else ''}{last} only"
    return response(error.status_code, detail, headers)


async def explain_end(_request: Request, _error: Exception) -> Response:
    """Answer a client that has gone before its request was whole; it is not there to read it."""
    return response(400, "the request ended before its body")


async def explain_bug(_request: Request, _error: Exception) -> Response:
    """Say that it is our fault; the log has the rest."""
    return response(500, "a bug; the daemon's log has its trace")
