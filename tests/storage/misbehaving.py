"""A registry of the tests that breaks rules as it is asked to, and remembers what it was sent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.storage.conftest import Made

Answer = Callable[["Handler"], bool]
"""Answers a request, or returns False to have it answered as it should be."""


class Registry(ThreadingHTTPServer):
    """Serves one image at any name."""

    daemon_threads = True

    def __init__(self, made: Made) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.made = made
        self.rule: Answer = lambda _: False
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that are killed."""

    def count(self, part: str) -> int:
        """How many requests had a text in their path."""
        return sum(part in path for _, path, _ in self.seen)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry

    def do_GET(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        if not self.server.rule(self):
            self.behave()

    def behave(self) -> None:
        made = self.server.made
        last = self.path.partition("?")[0].rpartition("/")[2]
        if "/manifests/" in self.path and last in ("latest", made.digest):
            self.answer(200, made.data, headers={"Content-Type": made.manifest.media_type})
        elif last in made.blobs:
            data = made.blobs[last]
            start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
            if start:
                whole = f"bytes {start}-{len(data) - 1}/{len(data)}"
                self.answer(206, data[start:], headers={"Content-Range": whole})
            else:
                self.answer(200, data)
        else:
            self.answer(404, b"{}")

    def answer(
        self,
        status: int,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        cut: int = 0,
    ) -> bool:
        """Send an answer; with `cut`, that many bytes of it, and end the connection."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:cut] if cut else data)
        self.close_connection = bool(cut)
        return True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def misbehaving(made: Made) -> Iterator[Registry]:
    """Run such a registry for the block."""
    with Registry(made) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
