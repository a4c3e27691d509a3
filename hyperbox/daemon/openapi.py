"""``/openapi.json``: the endpoints as an OpenAPI 3.1 document. Pure.

It is built from the same `Endpoint` values as the routes, so it cannot forget one. The
schemas are written by hand beside the encoders that they describe, and the tests hold
real answers against them: no framework has to be taken in for generating them.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyperbox.daemon import problems
from hyperbox.daemon.service import Endpoint, Parameter

__all__ = ["document"]

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_ALWAYS = {
    400: "Not HTTP, or a query parameter is unknown or has no such value.",
    413: "The request has a body, and it is too long.",
    421: "The Host header names another machine.",
    431: "The request's line and headers are too long.",
    503: "Too many connections.",
}


def document(endpoints: Sequence[Endpoint], version: str) -> dict[str, object]:
    """Describe the endpoints."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hyperbox daemon",
            "version": version,
            "summary": "Memory pressure and tuning of this machine.",
            "description": "Served on a unix socket and on loopback TCP, without authentication. "
            "Refusals are problem details (RFC 9457). Every GET answers HEAD too.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This daemon."}],
        "paths": {endpoint.path: {"get": _operation(endpoint)} for endpoint in endpoints},
        "components": {"schemas": {"Problem": problems.SCHEMA}},
    }


def _operation(endpoint: Endpoint) -> dict[str, object]:
    content = {media: {"schema": schema} for media, schema in endpoint.content.items()}
    responses: dict[str, object] = {"200": {"description": endpoint.summary, "content": content}}
    for status, meaning in sorted((_ALWAYS | dict(endpoint.also)).items()):
        own = content if status in endpoint.also else {}
        refusal = {problems.MEDIA_TYPE: {"schema": _PROBLEM}} if status in _ALWAYS else {}
        responses[str(status)] = {"description": meaning, "content": own | refusal}
    words = [word for word in endpoint.path.replace(".", "/").split("/") if word]
    operation: dict[str, object] = {
        "operationId": "_".join(["get", *(words or ["index"])]),
        "summary": endpoint.summary,
        "responses": responses,
    }
    if endpoint.description:
        operation["description"] = endpoint.description
    if endpoint.parameters:
        operation["parameters"] = [_parameter(one) for one in endpoint.parameters]
    return operation


def _parameter(parameter: Parameter) -> dict[str, object]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.description,
        "schema": parameter.schema,
    }
