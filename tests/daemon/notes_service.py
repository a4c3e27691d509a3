"""A service of the tests with every method: notes, each in a memory file of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from hyperbox.daemon import descriptor_store
from hyperbox.daemon.service import Endpoint, Method, Parameter, ServiceState, Status

NAME = Parameter("name", "The note's name.", {"type": "string"})
TEXT = {"text/plain": {"type": "string"}}
NOTE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "text": {"type": "string"}},
    "required": ["name", "text"],
}


class NotesService:
    """Keeps texts by name."""

    name = "notes"

    def __init__(self) -> None:
        self._state = ServiceState.STOPPED
        self._notes: dict[str, int] = {}

    def start(self) -> None:
        self._notes.update(descriptor_store.inherited())
        self._state = ServiceState.RUNNING

    def stop(self) -> None:
        self._state = ServiceState.STOPPED

    def status(self) -> Status:
        return Status(self._state)

    def metrics(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("notes", "Notes that are kept.", value=len(self._notes))

    def endpoints(self) -> Sequence[Endpoint]:
        one = "/notes/{name:path}"
        listed = {"application/json": {"type": "array", "items": {"type": "string"}}}
        return [
            Endpoint("/notes", "Names.", self._list, listed),
            Endpoint(
                "/notes",
                "A new note.",
                self._post,
                {},
                method=Method.POST,
                accepts={"application/json": NOTE},
                status=201,
            ),
            Endpoint(one, "A note.", self._get, TEXT, parameters=[NAME]),
            Endpoint(
                one, "Writes a note.", self._put, {}, "", [NAME], {}, Method.PUT, TEXT, status=204
            ),
            Endpoint(
                one, "Drops a note.", self._drop, {}, "", [NAME], method=Method.DELETE, status=204
            ),
        ]

    async def _list(self, _request: Request) -> Response:
        return JSONResponse(sorted(self._notes))

    async def _post(self, request: Request) -> Response:
        note = await request.json()
        self._write(note["name"], note["text"].encode())
        return Response(status_code=201)

    async def _get(self, request: Request) -> Response:
        handle = self._notes.get(request.path_params["name"])
        if handle is None:
            raise HTTPException(404, "no such note")
        return PlainTextResponse(os.pread(handle, 1 << 20, 0))

    async def _put(self, request: Request) -> Response:
        self._write(request.path_params["name"], await request.body())
        return Response(status_code=204)

    async def _drop(self, request: Request) -> Response:
        handle = self._notes.pop(request.path_params["name"], None)
        if handle is None:
            raise HTTPException(404, "no such note")
        descriptor_store.forget(request.path_params["name"])
        os.close(handle)
        return Response(status_code=204)

    def _write(self, name: str, text: bytes) -> None:
        if name not in self._notes:
            self._notes[name] = os.memfd_create("note")
            descriptor_store.keep(name, self._notes[name])
        os.ftruncate(self._notes[name], 0)
        os.pwrite(self._notes[name], text, 0)
