"""Production work that keeps one processor busy: servers with their loads, and a compiler."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import WorkloadError
from hyperbox.files import write_text
from hyperbox.processes import require, run, spawn, stop

__all__ = ["WORKS", "Work"]

_Words = tuple[str | Path, ...]

_PATIENCE_S = 60.0
_C = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int compare(const void *a, const void *b) { return strcmp(a, b); }
int main(int argc, char **argv) {
    char names[64][16];
    for (int i = 0; i < 64; i++) snprintf(names[i], 16, "%d", i * argc % 61);
    qsort(names, 64, 16, compare);
    return puts(names[atoi(argv[argc - 1]) % 64]) < 0;
}
"""
_NGINX = """
daemon off; user www-data; pid {directory}/pid; error_log {directory}/error; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log {directory}/access; sendfile on; keepalive_requests 1000000;
    client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
    uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s; fastcgi_temp_path {directory}/f;
    server {{ listen 127.0.0.1:8080; root {directory}/html; }}
}}
"""
_FLASK = """
import json
from flask import Flask
app = Flask(__name__)
@app.route("/")
def page():
    with open("page.json") as stream:
        return json.dumps(sorted(json.load(stream).items()))
"""
_POSTGRES = "/usr/lib/postgresql/17/bin"
_AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--")
_GET = (
    "python3",
    "-c",
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/')",
)
_PGBENCH = f"{_POSTGRES}/pgbench -h $PWD/data -U postgres -n -c 4 -t $(({{count}} / 4)) postgres"
_REQUESTS = re.compile(r"(\d+) requests in ")


@dataclass(frozen=True)
class Work:
    """What is prepared, and what is timed.

    A load that ends after a time instead of after `count` units says how many units it did.
    """

    prepared: Callable[[Path], contextlib.AbstractContextManager[None]]
    """What starts the server, in a directory of its own."""
    text: str
    """The shell command, with ``{count}`` in it."""
    count: int
    """Units of work that the command does; seconds, where the output says how many were done."""
    said: re.Pattern[str] | None = None
    """What the output says of the units that were done."""

    def command(self, *, warming: bool = False) -> str:
        """Return the command; for warming caches, with a quarter of the work."""
        return self.text.format(count=max(1, self.count // 4) if warming else self.count)

    def done(self, output: str) -> int:
        """Return how many units of work were done.

        Raises
        ------
        WorkloadError
            If the output does not say it.
        """
        if self.said is None:
            return self.count
        found = self.said.search(output)
        if found is None or int(found[1]) == 0:
            raise WorkloadError(f"no work was done: {output.strip()}")
        return int(found[1])


@contextlib.contextmanager
def _redis(directory: Path) -> Iterator[None]:
    words = ("--port", "6399", "--save", "", "--dir", str(directory))
    ping = ("redis-cli", "-p", "6399", "ping")
    with _server((require("redis-server", "redis-server"), *words), directory, ping):
        yield


@contextlib.contextmanager
def _gcc(directory: Path) -> Iterator[None]:
    require("gcc", "gcc")
    write_text(directory / "made.c", _C)
    yield


@contextlib.contextmanager
def _nginx(directory: Path) -> Iterator[None]:
    require("nginx", "nginx")
    (directory / "html").mkdir()
    write_text(directory / "html/index.html", "hello\n" * 100)
    write_text(directory / "nginx.conf", _NGINX.format(directory=directory))
    words = ("-e", str(directory / "error"), "-p", str(directory))
    with _server(("nginx", *words, "-c", str(directory / "nginx.conf")), directory, _GET):
        yield


@contextlib.contextmanager
def _python_web(directory: Path) -> Iterator[None]:
    require("gunicorn", "gunicorn")
    write_text(directory / "app.py", _FLASK)
    write_text(directory / "page.json", '{"b": [1, 2, 3], "a": {"c": "d"}}')
    words = ("--workers", "2", "--bind", "127.0.0.1:8080", "--log-level", "error", "app:app")
    with _server(("gunicorn", *words), directory, _GET):
        yield


@contextlib.contextmanager
def _postgresql(directory: Path) -> Iterator[None]:
    require(f"{_POSTGRES}/postgres", "postgresql-17")
    data = directory / "data"
    data.mkdir()
    run(("chown", "nobody:nogroup", data), timeout=_PATIENCE_S)
    made = (f"{_POSTGRES}/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N")
    run((*_AS_NOBODY, *made), timeout=_PATIENCE_S)
    words = (*_AS_NOBODY, f"{_POSTGRES}/postgres", "-D", data, "-k", data)
    select = (f"{_POSTGRES}/psql", "-h", data, "-U", "postgres", "-Atc", "select 1", "postgres")
    with _server(words, directory, select):
        tables = (f"{_POSTGRES}/pgbench", "-h", data, "-U", "postgres", "-q", "-i", "postgres")
        run(tables, timeout=_PATIENCE_S)
        yield


@contextlib.contextmanager
def _server(words: _Words, directory: Path, question: _Words) -> Iterator[None]:
    """Run a server; inside it has answered."""
    with tempfile.TemporaryFile() as stream:
        server = spawn(words, cwd=directory, stdout=stream, stderr=stream)
        try:
            deadline = time.monotonic() + _PATIENCE_S
            while run(question, timeout=_PATIENCE_S, check=False).status:
                if server.poll() is not None or time.monotonic() > deadline:
                    stream.seek(0)
                    printed = stream.read().decode(errors="replace").strip()
                    raise WorkloadError(f"{words[0]} does not answer: {printed}")
                time.sleep(0.1)
            yield
        finally:
            stop(server)


WORKS: Mapping[str, Work] = {
    "redis": Work(_redis, "redis-benchmark -p 6399 -q -c 20 -n {count} -t set,get", 20_000),
    "gcc": Work(
        _gcc,
        "i=0; while [ $i -lt {count} ]; do gcc -O2 -o made$i made.c || exit 1; i=$((i+1)); done",
        12,
    ),
    "nginx": Work(_nginx, "wrk -t 1 -c 10 -d {count} http://127.0.0.1:8080/", 4, _REQUESTS),
    "python-web": Work(
        _python_web, "wrk -t 1 -c 4 -d {count} http://127.0.0.1:8080/", 4, _REQUESTS
    ),
    "postgresql": Work(_postgresql, _PGBENCH, 1_200),
}
"""By the name of the layer that has the programs."""
