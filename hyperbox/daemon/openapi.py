"""``/openapi.json``: the endpoints as an OpenAPI 3.1 document. Pure.

It is built from the same `Endpoint` values as the routes, so it cannot forget one. The
schemas are written by hand beside the encoders that they describe, and the tests hold
real answers against them: no framework has to be taken in for generating them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hyperbox.daemon import problems
from hyperbox.daemon.service import Endpoint, Method, Parameter

__all__ = ["document"]

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_CHANGING = {
    403: "A web page asks: the request has an Origin header.",
    415: "The body's type is none of these.",
}
_ALWAYS = {
    400: "Not HTTP, or a query parameter is unknown or has no such value.",
    413: "The request has a body, and it is too long.",
    421: "The Host header names another machine.",
    431: "The request's line and headers are too long.",
    503: "Too many connections.",
}


def document(endpoints: Sequence[Endpoint], version: str) -> dict[str, object]:
    """Describe the endpoints."""
    paths: dict[str, dict[str, object]] = {}
    for endpoint in endpoints:
        item = paths.setdefault(re.sub(r":\w+\}", "}", endpoint.path), {})
        item[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hyperbox daemon",
            "version": version,
            "summary": "Memory pressure, tuning and traces of this machine.",
            "description": "Served on a unix socket and on loopback TCP, without authentication. "
            "Refusals are problem details (RFC 9457). Every GET answers HEAD too.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This daemon."}],
        "paths": paths,
        "components": {"schemas": {"Problem": problems.SCHEMA}},
    }


def _operation(endpoint: Endpoint) -> dict[str, object]:
    content = {media: {"schema": schema} for media, schema in endpoint.content.items()}
    responses: dict[str, object] = {
        str(endpoint.status): {"description": endpoint.summary, "content": content}
    }
    always = _ALWAYS if endpoint.method is Method.GET else _ALWAYS | _CHANGING
    for status, meaning in sorted((always | dict(endpoint.also)).items()):
        own = content if status in endpoint.also else {}
        refusal = {problems.MEDIA_TYPE: {"schema": _PROBLEM}} if status in always else {}
        responses[str(status)] = {"description": meaning, "content": own | refusal}
    words = re.findall(r"\w+", re.sub(r":\w+\}", "}", endpoint.path))
    operation: dict[str, object] = {
        "operationId": "_".join([endpoint.method.lower(), *(words or ["index"])]),
        "summary": endpoint.summary,
        "responses": responses,
    }
    if endpoint.description:
        operation["description"] = endpoint.description
    if endpoint.parameters:
        operation["parameters"] = [_parameter(one, endpoint) for one in endpoint.parameters]
    if endpoint.accepts:
        content = {media: {"schema": schema} for media, schema in endpoint.accepts.items()}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameter(parameter: Parameter, endpoint: Endpoint) -> dict[str, object]:
    in_path = parameter.name in endpoint.in_path
    return {
        "name": parameter.name,
        "in": "path" if in_path else "query",
        "required": in_path,
        "description": parameter.description,
        "schema": parameter.schema,
    }
