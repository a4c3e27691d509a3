"""An HTTP server for blobs that lies, stalls and dies as it is asked to.

``python3 http_blobs.py DIRECTORY [PORT]`` serves a directory with Range; it prints its port.
"""

from __future__ import annotations

import contextlib
import http.server
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class BlobServer(http.server.ThreadingHTTPServer):
    """Serves files of a directory; `fault` is looked at for each request."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, directory: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.directory = directory
        self.fault = ""
        self.requests: list[str] = []
        self.sent = 0
        self.location = ""
        self.pause_s = 0.0

    @property
    def url(self) -> str:
        """Return where it serves."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BlobServer

    def do_GET(self) -> None:
        fault, self.close_connection = self.server.fault, True
        asked = self.headers.get("Range", "")
        self.server.requests.append(f"{self.path} {asked} {self.headers.get('Authorization', '')}")
        if fault == "redirect":
            self.send_response(307)
            self.send_header("Location", self.server.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "refuse":
            self.send_error(503)
            return
        time.sleep(self.server.pause_s)
        whole = (self.server.directory / self.path.lstrip("/")).read_bytes()
        first, last = (int(text) for text in asked.removeprefix("bytes=").split("-"))
        data = whole[first : last + 1]
        if fault == "flip":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault == "no range":
            self._answer(200, whole, "")
        elif fault == "wrong range":
            self._answer(206, data, f"bytes {first + 1}-{last + 1}/{len(whole)}")
        elif fault == "cut":
            half = data[: len(data) // 2]
            self._answer(206, half, f"bytes {first}-{last}/{len(whole)}", said=len(data))
        elif fault == "short":
            self._answer(206, data[:-1], f"bytes {first}-{last - 1}/{len(whole)}")
        else:
            self._answer(206, data, f"bytes {first}-{last}/{len(whole)}")

    def _answer(self, status: int, data: bytes, span: str, said: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if said is None else said))
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)
        self.server.sent += len(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[BlobServer]:
    """Serve a directory for the block, in a thread."""
    server = BlobServer(directory)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    served = BlobServer(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(served.server_address[1], flush=True)
    served.serve_forever()
