"""Endpoints of every method, over HTTP, and what the OpenAPI document says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.daemon.conftest import daemon
from tests.daemon.test_requests import exchange

PROGRAM = """
import sys
from hyperbox.daemon.listeners import Address, tcp_listener
from hyperbox.daemon.logs import configure
from hyperbox.daemon.server import serve
from hyperbox.daemon.service_group import ServiceGroup
from tests.daemon.notes_service import NotesService
configure()
with tcp_listener(Address("127.0.0.1", 0)) as listener, ServiceGroup([NotesService()]) as group:
    serve(group, [listener])
"""


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with daemon(["-c", PROGRAM], None) as running, running.client() as client:
        yield client
        assert running.end() == 0
        assert {record["level"] for record in running.log} == {"info"}


def test_each_method_does_what_it_is_declared_for(client: httpx.Client) -> None:
    assert client.get("/notes/a").status_code == 404
    assert client.post("/notes", json={"name": "a", "text": "first"}).status_code == 201
    assert client.get("/notes/a").text == "first"
    head = client.head("/notes/a")
    assert (head.status_code, head.content) == (200, b"")
    plain = {"content-type": "text/plain; charset=utf-8"}
    for text in ("second", ""):
        assert client.put("/notes/a/b", content=text, headers=plain).status_code == 204
        assert client.get("/notes/a/b").text == text
    assert client.get("/notes").json() == ["a", "a/b"]
    assert client.delete("/notes/a/b").status_code == 204
    assert client.delete("/notes/a").status_code == 204
    assert client.get("/notes").json() == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", "/notes", "GET, HEAD, POST"),
        ("DELETE", "/notes", "GET, HEAD, POST"),
        ("POST", "/notes/a", "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", "/notes/a", "DELETE, GET, HEAD, PUT"),
        ("TRACE", "/notes", "GET, HEAD, POST"),
        ("BREW", "/metrics", "GET, HEAD"),
    ],
)
def test_other_methods_are_405_with_those_that_there_are(
    client: httpx.Client, method: str, path: str, allow: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    *others, last = allow.split(", ")
    assert answer.json()["detail"] == f"this path answers {', '.join(others)} and {last} only"


def test_bodies_of_other_types_are_415(client: httpx.Client) -> None:
    for headers in ({}, {"content-type": "text/plain"}):
        answer = client.post("/notes", content=b'{"name": "a", "text": ""}', headers=headers)
        assert answer.status_code == 415
        assert answer.headers["accept"] == "application/json"


def test_a_body_in_chunks_has_the_same_limit(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    answer = client.put("/notes/a", content=endless(), headers={"content-type": "text/plain"})
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
    assert client.get("/notes/a").status_code == 404


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost"])
def test_web_pages_change_nothing(client: httpx.Client, origin: str) -> None:
    headers = {"origin": origin, "content-type": "application/json"}
    answer = client.post("/notes", json={"name": "a", "text": ""}, headers=headers)
    assert answer.status_code == 403
    assert client.get("/notes", headers=headers).json() == []


def test_a_broken_body_of_a_changing_request_is_no_bug(client: httpx.Client) -> None:
    port = client.base_url.port
    assert port is not None
    head = b"PUT /notes/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
    answer = exchange(port, head + b"Content-Length: 50\r\n\r\nshort")
    assert b" 500 " not in answer
    assert client.get("/notes/a").status_code == 404


def test_document_has_every_method_with_parameters_and_body(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    assert document["paths"]["/notes"].keys() == {"get", "post"}
    one = document["paths"]["/notes/{name}"]
    assert one.keys() == {"get", "put", "delete"}
    assert one["put"]["requestBody"]["content"]["text/plain"] == {"schema": {"type": "string"}}
    assert one["put"]["operationId"] == "put_notes_name"
    assert (one["get"]["parameters"][0]["in"], one["get"]["parameters"][0]["required"]) == (
        "path",
        True,
    )
    assert {"204", "403", "415"} <= one["put"]["responses"].keys()
    assert "403" not in one["get"]["responses"]
    index = json.loads(client.get("/").content)["endpoints"]
    assert index["/notes"] == "Names. POST: A new note."
