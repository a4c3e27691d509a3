"""What a running daemon answers: over TCP and unix sockets, under load, to many, to rubbish."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from hyperbox.linux.pressure import PROC_PRESSURE, Resource, StallKind, parse_pressure
from tests.daemon.conftest import PATIENCE_S, Daemon, has_pressure

OPENMETRICS = "application/openmetrics-text"
_ALWAYS = ("/traces/stats", "/traces.proto")  # answered without tracing, too


def kernel() -> dict[str, int]:
    """Every total that the kernel has now, as the endpoint names it."""
    totals = {}
    for resource in Resource:
        with contextlib.suppress(OSError):
            pressure = parse_pressure((PROC_PRESSURE / resource).read_text())
            for kind in StallKind:
                line = pressure.line(kind)
                if line is not None:
                    totals[f"{kind}_{resource}_us"] = line.total_us
    return totals


@pytest.fixture
def load() -> Iterator[None]:
    """More busy processes than there are processors."""
    spin = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(4)]
    yield
    for process in processes:
        process.kill()
        process.wait()


def eventually(ask: Callable[[], Any]) -> Any:
    """Return the first true answer."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = ask()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


@has_pressure
@pytest.mark.parametrize("unix", [False, True])
@pytest.mark.usefixtures("load")
def test_totals_equal_the_kernels_while_load_runs(shared: Daemon, unix: bool) -> None:
    with shared.client(unix=unix) as client:
        for _ in range(20):
            before = kernel()
            answer = client.get("/metrics/memory/psi").json()
            after = kernel()
            assert answer["available"] is True
            got = {name: value for name, value in answer.items() if name.endswith("_us")}
            assert got.keys() == before.keys()
            assert all(before[name] <= got[name] <= after[name] for name in got)
        assert {"some_cpu_us", "some_memory_us", "full_memory_us"} <= got.keys()


@has_pressure
@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
@pytest.mark.usefixtures("load")
def test_counters_equal_the_kernels_to_the_microsecond(shared: Daemon, accept: str) -> None:
    parse = openmetrics if accept == OPENMETRICS else plain
    with shared.client() as client:
        before = kernel()
        answer = client.get("/metrics", headers={"accept": accept})
        after = kernel()
    assert answer.headers["content-type"].startswith(accept)
    samples = {s.name: s.value for family in parse(answer.text) for s in family.samples}
    words = {"waiting": "some", "stalled": "full"}
    seen = set()
    for name, value in samples.items():
        if name.startswith("node_pressure_"):
            resource, word = name.split("_")[2:4]
            key = f"{words[word]}_{resource}_us"
            assert before[key] <= round(value * 1e6) <= after[key]
            seen.add(key)
    assert seen == before.keys() - {"full_cpu_us", "some_irq_us"}


@has_pressure
def test_averages_are_the_kernels_and_our_own(shared: Daemon) -> None:
    def both() -> Any:
        answer = client.get("/metrics/memory/psi").json()
        return answer if answer["avg10"]["some_cpu"]["boxcar"] else None

    with shared.client() as client:
        averages = eventually(both)["avg10"]
    assert {f"{name}_us" for name in averages} == kernel().keys()
    for average in averages.values():
        assert 0 <= average["kernel"] <= 100
        assert 0 <= average["boxcar"]["percent"] <= 100.5
        assert 0 < average["boxcar"]["span_s"] <= 10
        assert average["boxcar"]["error"] < 1  # a hundred samples a second leave little to guess


@has_pressure
def test_history_is_the_last_hundred_samples_or_fewer(shared: Daemon) -> None:
    def full() -> Any:
        answer = client.get("/metrics/memory/psi").json()
        return answer if answer["samples"] == 100 else None

    def moved_on() -> Any:
        rows = full()["history"]
        return rows if rows[0]["time_ns"] > times[0] else None

    with shared.client() as client:
        answer = eventually(full)
        history = answer["history"]
        times = [row["time_ns"] for row in history]
        few = client.get("/metrics/memory/psi", params={"samples": 3}).json()
        none = client.get("/metrics/memory/psi", params={"samples": 0}).json()
        later = eventually(moved_on)
    assert len(times) == len(later) == 100
    assert times == sorted(set(times))
    assert all(a["some_cpu_us"] <= b["some_cpu_us"] for a, b in itertools.pairwise(history))
    assert len(few["history"]) == 3
    assert few["samples"] == none["samples"] == 100
    assert few["history"][-1]["time_ns"] >= times[-1]
    assert none["history"] == []
    assert answer["sampling"]["interval_s"] == 0.01
    assert answer["sampling"]["keeps"] == 100
    assert answer["sampling"]["taken"] >= 100
    assert 0 < answer["sampling"]["cpu_s"] < answer["sampling"]["running_s"]


def test_two_hundred_concurrent_requests_are_all_answered(shared: Daemon) -> None:
    paths = ["/metrics/memory/psi", "/metrics", "/healthz", "/openapi.json"]

    def ask(number: int) -> tuple[int, bytes]:
        with shared.client(unix=number % 2 == 1) as client:
            answer = client.get(paths[number % 4])
            return answer.status_code, answer.content

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(ask, range(200)))
    assert [status for status, _ in answers] == [200] * 200
    assert all(body for _, body in answers)


def test_document_is_openapi_and_every_answer_is_as_it_says(shared: Daemon) -> None:
    with shared.client() as client:
        document = client.get("/openapi.json").json()
        OpenAPIV31SpecValidator(document).validate()
        index = client.get("/").json()
        assert index["endpoints"].keys() == document["paths"].keys()
        for path, item in document["paths"].items():
            answer = client.get(path)
            if path.startswith("/traces") and path not in _ALWAYS:  # nobody asked for any
                assert answer.status_code == 503
                assert "hyperbox daemon --trace" in answer.json()["detail"]
                continue
            content = item["get"]["responses"]["200"]["content"]
            media = answer.headers["content-type"].partition(";")[0]
            body = answer.json() if media == "application/json" else answer.text
            jsonschema.validate(body, content[media]["schema"])
            head = client.head(path)
            assert (head.status_code, head.content) == (200, b"")


def test_health_says_what_runs(shared: Daemon) -> None:
    with shared.client() as client:
        health = client.get("/healthz").json()
    assert health["live"] is health["ready"] is True
    assert health["pid"] == shared.process.pid
    assert health["services"].keys() == {"pressure", "traces"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (prometheus)")
def test_promtool_has_nothing_to_say(shared: Daemon) -> None:
    with shared.client() as client:
        text = client.get("/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (prometheus)")
def test_prometheus_itself_reads_the_openmetrics(shared: Daemon, tmp_path: Path) -> None:
    with shared.client() as client:
        text = client.get("/metrics", headers={"accept": OPENMETRICS}).text
    lines = [line if line.startswith("#") else f"{line} 1700000000" for line in text.splitlines()]
    (tmp_path / "metrics").write_text("\n".join(lines) + "\n")
    # `check metrics` reads the text format only (expfmt.TextParser in cmd/promtool, up to
    # Prometheus 3) and stops at the type "info"; this one wants a time at each sample.
    argv = ["promtool", "tsdb", "create-blocks-from", "openmetrics"]
    done = subprocess.run(
        [*argv, tmp_path / "metrics", tmp_path / "blocks"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    samples = [line for line in lines if not line.startswith("#")]
    assert f" {len(samples)} " in done.stdout.splitlines()[1]


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain", "text/plain; version=0.0.4"),
        (f"{OPENMETRICS};version=1.0.0,text/plain;q=0.5", f"{OPENMETRICS}; version=1.0.0"),
        (f"{OPENMETRICS};version=x", "text/plain; version=0.0.4"),
        ("text/plain; version=latest", "text/plain; version=0.0.4"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8; escaping="),
    ],
)
def test_metrics_come_in_the_format_that_is_asked_for(
    shared: Daemon, accept: str, given: str
) -> None:
    with shared.client() as client:
        answer = client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(given)
    assert list(plain(answer.text))
    assert answer.text.endswith("# EOF\n") is given.startswith(OPENMETRICS)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "detail"),
    [
        ("GET", "/metrics/memory", {}, 404, "GET / lists"),
        ("GET", "/metrics/", {}, 404, "GET / lists"),
        ("GET", "/%ff%00/../etc/passwd", {}, 404, "GET / lists"),
        ("POST", "/metrics", {}, 405, "GET and HEAD"),
        ("DELETE", "/", {}, 405, "GET and HEAD"),
        ("POST", "/healthz", {"content-length": "70000"}, 413, "65536"),
        ("GET", "/healthz", {"host": "evil.example"}, 421, "another machine"),
        ("GET", "/healthz", {"host": "evil.example:9797"}, 421, "another machine"),
        ("GET", "/healthz?verbose=1", {}, 400, "no parameter 'verbose' here; it takes none"),
        ("GET", "/metrics/memory/psi?sample=1", {}, 400, "it takes samples"),
        ("GET", "/metrics/memory/psi?samples=1&samples=2", {}, 400, "more than once"),
        ("GET", "/metrics/memory/psi?samples=", {}, 400, "whole number"),
        ("GET", "/metrics/memory/psi?samples=-1", {}, 400, "whole number"),
        ("GET", "/metrics/memory/psi?samples=1e2", {}, 400, "whole number"),
        ("GET", "/metrics/memory/psi?samples=%D9%A1", {}, 400, "whole number"),
        ("GET", "/metrics/memory/psi?samples=101", {}, 400, "at most 100"),
        ("GET", "/metrics/memory/psi?samples=" + "9" * 5000, {}, 400, "whole number"),
    ],
)
def test_refusals_have_one_shape(
    shared: Daemon, method: str, path: str, headers: dict[str, str], status: int, detail: str
) -> None:
    body = b"x" * int(headers.get("content-length", "0"))
    with shared.client() as client:
        answer = client.request(method, path, headers=headers, content=body)
        schema = client.get("/openapi.json").json()["components"]["schemas"]["Problem"]
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    jsonschema.validate(answer.json(), schema)
    assert answer.json()["status"] == status
    assert detail in answer.json()["detail"]
    if status == 405:
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_accept_may_be_several_headers(shared: Daemon) -> None:
    with shared.client() as client:
        headers = [("accept", "text/plain;q=0.1"), ("accept", OPENMETRICS)]
        assert client.get("/metrics", headers=headers).text.endswith("# EOF\n")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.:80", "127.0.0.1:9797", "[::1]:9797", "[::1]"]
)
def test_names_of_this_machine_are_hosts(shared: Daemon, host: str) -> None:
    with shared.client() as client:
        assert client.get("/", headers={"host": host}).status_code == 200


def test_answers_are_dated_and_not_stored(shared: Daemon) -> None:
    with shared.client() as client:
        headers = client.get("/").headers
    assert abs(parsedate_to_datetime(headers["date"]).timestamp() - time.time()) < 3600
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def exchange(port: int, data: bytes) -> bytes:
    """Send bytes, close our side, and return everything that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as wire:
        received = b""
        with contextlib.suppress(ConnectionError):
            wire.sendall(data)
            wire.shutdown(socket.SHUT_WR)
            while part := wire.recv(65_536):
                received += part
    return received


CHUNKED = b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"rubbish\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        CHUNKED + b"zz\r\nabc\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n",  # TLS
    ],
)
def test_what_is_no_http_is_refused_in_the_same_shape(shared: Daemon, data: bytes) -> None:
    head, _, body = exchange(shared.port, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["status"] == 400


@pytest.mark.parametrize("length", [17_000, 4_000_000])
@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_head_that_is_too_long_is_refused_and_the_client_hears_of_it(
    shared: Daemon, length: int, end: bytes
) -> None:
    data = b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * length + end
    head, _, body = exchange(shared.port, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large")
    assert json.loads(body)["detail"] == "the request's line and headers are too long"


def test_client_that_sends_on_reads_its_refusal(shared: Daemon) -> None:
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n"
    assert exchange(shared.port, head + b"x" * 8_000_000).startswith(b"HTTP/1.1 413 ")


REQUESTS = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda method, path, extra: method + b" /" + path + b" HTTP/1.1\r\n" + extra + b"\r\n\r\n",
        st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"get"]),
        st.binary(max_size=60),
        st.sampled_from([b"Host: localhost", b"Host: a\r\nHost: b", b"Content-Length: -1"])
        | st.binary(max_size=60),
    ),
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=REQUESTS)
def test_no_bytes_hurt_the_daemon(shared: Daemon, data: bytes) -> None:
    received = exchange(shared.port, data)
    assert received == b"" or received.startswith(b"HTTP/1.1 ")
    assert b" 500 " not in received.partition(b"\r\n")[0]
    assert exchange(shared.port, b"HEAD / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
