"""The web application: routes of all services, and the pages about the group as a whole.

Starlette does routing, HEAD, 404 and 405. What it and no service says lies here: one shape
for refusals, limits on bodies, unknown query parameters, and the Host header, which a web
page that resolves its own name to 127.0.0.1 cannot fake (DNS rebinding). What changes something
is not for web pages at all: they say by the Origin header that they are some (RFC 6454, 7.3).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
from collections.abc import Mapping
from email.utils import formatdate

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import hyperbox
from hyperbox.daemon import openapi, problems
from hyperbox.daemon.exposition import CONTENT_TYPES, Exposition
from hyperbox.daemon.service import Answer, Endpoint, Method, Schema, ServiceState
from hyperbox.daemon.service_group import ServiceGroup

__all__ = ["application", "meant_here"]

_STATUS: Schema = {
    "type": "object",
    "properties": {
        "state": {"enum": [str(state) for state in ServiceState]},
        "reason": {"type": "string", "description": "Why it does not run."},
        "hint": {"type": "string", "description": "What to do about it."},
    },
    "required": ["state"],
    "additionalProperties": False,
}
_HEALTH: Schema = {
    "type": "object",
    "properties": {
        "live": {"const": True, "description": "It answers."},
        "ready": {
            "type": "boolean",
            "description": "Everything that this machine can do runs; else the status is 503.",
        },
        "version": {"type": "string"},
        "pid": {"type": "integer"},
        "started_unix_s": {"type": "number"},
        "services": {
            "type": "object",
            "description": "Each service; an unavailable one does not make the daemon unready.",
            "additionalProperties": _STATUS,
        },
    },
    "required": ["live", "ready", "version", "pid", "started_unix_s", "services"],
    "additionalProperties": False,
}
_INDEX: Schema = {
    "type": "object",
    "properties": {
        "name": {"const": "hyperbox"},
        "version": {"type": "string"},
        "endpoints": {
            "type": "object",
            "description": "Path to what it answers.",
            "additionalProperties": {"type": "string"},
        },
    },
    "required": ["name", "version", "endpoints"],
    "additionalProperties": False,
}


_HOST = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]*)?")
_SAFE = ("GET", "HEAD", "OPTIONS")  # RFC 9110, 9.2.1, as browsers send them to other sites too
_MANY_DIGITS = 15  # of a length; int() of thousands of them is an error


def application(group: ServiceGroup, *, longest_head: int, longest_body: int) -> ASGIApp:
    """Return the application that serves a group.

    Parameters
    ----------
    longest_head
        Bytes that a request's line and headers may have.
    longest_body
        Bytes that a request's body may say it has.
    """
    endpoints = [*_common(group), *(e for service in group.services for e in service.endpoints())]
    endpoints += [_index(endpoints), _described(endpoints)]
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        methods = by_path.setdefault(endpoint.path, {})
        if endpoint.method in methods:
            raise ValueError(f"two endpoints answer {endpoint.method} {endpoint.path}")
        methods[endpoint.method] = endpoint
    starlette = Starlette(
        routes=[Route(path, _answer(of), methods=list(of)) for path, of in by_path.items()],
        middleware=[Middleware(_Edge, longest_head=longest_head, longest_body=longest_body)],
        exception_handlers={
            HTTPException: problems.explain,
            ClientDisconnect: problems.explain_end,
            Exception: problems.explain_bug,
        },
    )
    starlette.router.redirect_slashes = False  # a wrong path is a refusal, not a detour
    return starlette


class _Edge:
    """What every request passes on its way in, and every answer on its way out."""

    def __init__(self, app: ASGIApp, longest_head: int, longest_body: int) -> None:
        self.app = app
        self.longest_head = longest_head
        self.longest_body = longest_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what no endpoint should see; date the answer."""

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["date"] = formatdate(usegmt=True)
                headers.setdefault("cache-control", "no-store")
                headers.setdefault("x-content-type-options", "nosniff")
            await send(message)

        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if _head(scope) > self.longest_head:  # h11 accepts it, because it came in one piece
            refusal = problems.response(431, problems.DETAILS[431], {"connection": "close"})
            await refusal(scope, receive, dated)
        elif len(length) > _MANY_DIGITS or (length.isdecimal() and int(length) > self.longest_body):
            detail = f"a body of at most {self.longest_body} bytes is taken"
            refusal = problems.response(413, detail, {"connection": "close"})
            await refusal(scope, receive, dated)
        elif scope["method"] not in _SAFE and "origin" in headers:
            refusal = problems.response(403, "a web page may not change anything here")
            await refusal(scope, receive, dated)
        elif not meant_here(scope.get("server") or ("", None), headers.get("host", "")):
            refusal = problems.response(421, "the Host header names another machine")
            await refusal(scope, receive, dated)
        else:
            await self.app(scope, self._bounded(receive), dated)

    def _bounded(self, receive: Receive) -> Receive:
        """Let no more of a body through than the limit: one in chunks does not say its length."""
        length = 0

        async def counted() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > self.longest_body:
                raise HTTPException(413, problems.DETAILS[413], {"connection": "close"})
            return message

        return counted


def _head(scope: Scope) -> int:
    """Bytes of a request's line and headers, nearly: without what one space each would add."""
    headers = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    return headers + len(scope["raw_path"]) + len(scope["query_string"])


def meant_here(local: tuple[str, int | None], host: str) -> bool:
    """Return whether a request names this machine as its host, where it has to.

    Parameters
    ----------
    local
        Address and port that the client has connected to; no port on a unix socket.
    host
        The Host header.
    """
    if local[1] is None or not _loopback(local[0]):
        return True  # a unix socket, which no web page reaches, or an address that has names
    parts = _HOST.fullmatch(host)
    if parts is None:
        return False
    if parts["v6"] is not None:
        return _loopback(parts["v6"])
    name = parts["name"].lower().removesuffix(".")
    return name in ("", "localhost") or _loopback(name)


def _loopback(address: str) -> bool:
    """Whether it is a loopback address; ::ffff:127.0.0.1 is what [::] has for one of IPv4."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _answer(of: Mapping[str, Endpoint]) -> Answer:
    """Return what answers a path by its methods; Starlette refuses the others, and knows HEAD."""
    checked = {method: _checked(endpoint) for method, endpoint in of.items()}

    async def answer(request: Request) -> Response:
        return await checked[Method.GET if request.method == "HEAD" else request.method](request)

    return answer


def _checked(endpoint: Endpoint) -> Answer:
    known = sorted({parameter.name for parameter in endpoint.parameters} - {*endpoint.in_path})

    async def answer(request: Request) -> Response:
        names = [name for name, _ in request.query_params.multi_items()]
        for name in names:
            if name not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise HTTPException(400, f"no parameter {name!r} here; {takes}")
            if names.count(name) > 1:
                raise HTTPException(400, f"parameter {name!r} is given more than once")
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if endpoint.accepts and media not in endpoint.accepts:
            takes = ", ".join(endpoint.accepts)
            raise HTTPException(415, f"the body has to be {takes}", {"accept": takes})
        return await endpoint.answer(request)

    return answer


def _common(group: ServiceGroup) -> list[Endpoint]:
    exposition = Exposition(group)

    async def health(_request: Request) -> Response:
        statuses = await asyncio.to_thread(group.statuses)  # some ask another process
        said = {
            "live": True,
            "ready": group.ready(statuses),
            "version": hyperbox.__version__,
            "pid": os.getpid(),
            "started_unix_s": group.started_unix_s,
            "services": {name: status.as_json() for name, status in statuses.items()},
        }
        return JSONResponse(said, 200 if said["ready"] else 503)

    async def metrics(request: Request) -> Response:
        accept = ", ".join(request.headers.getlist("accept"))
        body, media_type = await asyncio.to_thread(exposition.encoded, accept)
        return Response(body, headers={"content-type": media_type, "vary": "accept"})

    return [
        Endpoint(
            "/healthz",
            "What runs, what this machine cannot do and why, what has failed.",
            health,
            {"application/json": _HEALTH},
            also={503: "Something that should run does not; or too many connections."},
        ),
        Endpoint(
            "/metrics",
            "Metrics for Prometheus, under the names of its node_exporter where it has them.",
            metrics,
            {media: {"type": "string"} for media in CONTENT_TYPES},
            description="OpenMetrics 1.0.0 or text format 1.0.0 if the Accept header prefers it, "
            "else text format 0.0.4.",
        ),
    ]


def _index(endpoints: list[Endpoint]) -> Endpoint:
    paths = {"/": "This list."}
    for endpoint in endpoints:
        method = "" if endpoint.method is Method.GET else f"{endpoint.method}: "
        before = f"{paths[endpoint.path]} " if endpoint.path in paths else ""
        paths[endpoint.path] = f"{before}{method}{endpoint.summary}"
    paths["/openapi.json"] = "All this as an OpenAPI document."

    async def index(_request: Request) -> Response:
        said = {"name": "hyperbox", "version": hyperbox.__version__, "endpoints": paths}
        return JSONResponse(said)

    return Endpoint("/", "What there is.", index, {"application/json": _INDEX})


def _described(endpoints: list[Endpoint]) -> Endpoint:
    async def described(_request: Request) -> Response:
        return JSONResponse(document)

    own = Endpoint(
        "/openapi.json",
        "This document.",
        described,
        {"application/json": {"type": "object"}},
    )
    everything = [_index(endpoints), *endpoints, own]
    document = openapi.document(everything, hyperbox.__version__)
    return own
