"""``hyperbox trace``: counts, files that others read, exit codes, refusals in one line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hyperbox.errors import ExitCode
from tests.observability.peers import http_peer

TRACE = (sys.executable, "-m", "hyperbox", "trace")


def trace(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TRACE, *words], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.root
def test_a_command_is_traced_from_its_first_call(tmp_path: Path) -> None:
    made = tmp_path / "spans.jsonl"
    done = trace("--json", "--output", made, "--", "sh", "-c", "cd /nonexistent; exit 7")
    assert done.returncode == 7
    summary = json.loads(done.stdout)
    rows = {(row["process"], row["call"]): row for row in summary["rows"]}
    assert rows["sh", "execve"]["count"] == 1
    assert rows["sh", "chdir"]["errnos"] == {"2": 1}
    assert summary["processes"] == 1
    spans = [
        span
        for line in made.read_text().splitlines()
        for batch in json.loads(line)["resourceSpans"]
        for span in batch["scopeSpans"][0]["spans"]
    ]
    assert len(spans) == summary["spans"]


@pytest.mark.root
def test_spans_are_sent_to_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with http_peer() as peer:
        done = trace("--json", "--otlp", f"http://127.0.0.1:{peer.port}", "--", "true")
        spans = json.loads(done.stdout)["spans"]
        assert done.returncode == 0
        assert f"{spans} spans exported, 0 lost" in done.stderr
        found = ExportTraceServiceRequest()
        for received in peer.got:
            found.MergeFromString(received.body)
    names = [
        span.name
        for resource in found.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert len(names) == spans
    assert "true" in names, "the span of the process' life"


@pytest.mark.root
def test_a_trace_that_perfetto_opens(tmp_path: Path) -> None:
    made = tmp_path / "trace.json"
    done = trace("--format", "chrome", "--output", made, "--", "sleep", "0.02")
    assert done.returncode == 0
    assert "clock_nanosleep" in done.stderr
    events = json.loads(made.read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "C"}
    assert all(event["dur"] >= 0 for event in events if event["ph"] == "X")
    (life,) = [event for event in events if event.get("cat") == "process"]
    assert life["dur"] >= 20_000


@pytest.mark.root
def test_a_signal_goes_to_the_command_and_the_summary_still_comes() -> None:
    program = "trap 'exit 9' INT; echo ready; while :; do sleep 0.01; done"
    with subprocess.Popen(
        [*TRACE, "--", "sh", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 9
        assert b" calls of " in process.stderr.read()


@pytest.mark.root
def test_a_process_is_traced_until_it_ends() -> None:
    with subprocess.Popen(["sleep", "3"]) as process:
        done = trace("--json", "--pid", str(process.pid))
    calls = {row["call"] for row in json.loads(done.stdout)["rows"]}
    assert done.returncode == 0
    assert "exit_group" in calls


@pytest.mark.root
def test_the_machine_for_some_time() -> None:
    # On an idle machine nobody may make a call in so short a time.
    with subprocess.Popen(["sh", "-c", "while :; do /bin/true; done"]) as busy:
        done = trace("--json", "--all", "--duration", "0.2")
        busy.kill()
    assert done.returncode == 0
    assert json.loads(done.stdout)["count"] > 0


@pytest.mark.root
def test_without_rights_it_is_one_line() -> None:
    program = "import os, sys; from hyperbox.cli import trace, main; import hyperbox.linux.bpf\n"
    program += "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    program += "sys.exit(main.main(['trace', '--all']))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.HARNESS_ERROR
    assert done.stderr.startswith("hyperbox: error: load of tracer.bpf.o")
    assert "CAP_BPF" in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "nothing to trace"),
        (("--all", "--pid", "1"), "exclude each other"),
        (("--cgroup", "/nonexistent"), "not a cgroup v2 directory"),
        (("--all", "--duration", "0"), "number of seconds"),
        (("--", "/nonexistent/program"), "no such program"),
        (("--container", "nonexistent"), "no such container"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], text: str) -> None:
    done = trace(*words)
    assert done.returncode == ExitCode.BAD_USAGE
    assert text in done.stderr
    assert "Traceback" not in done.stderr
