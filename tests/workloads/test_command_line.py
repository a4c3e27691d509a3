"""Every workload alone: its help, wrong numbers, and its end by any signal."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.processes import run, spawn, stop
from workloads import command_line, file_stream

WORKLOADS = Path(__file__).parents[2] / "workloads"
PROGRAMS = sorted(path.stem for path in WORKLOADS.glob("*.py") if path.stem != "command_line")
PATIENCE_S = 60.0
ENDLESS = {
    "cpu_bursts": ["--processes", "3", "--period-ms", "50"],
    "file_stream": [],
    "images": ["--scale", "1000"],
    "memory_walk": ["--mib", "1", "--accesses", "10", "--seconds", "600"],
    "service": ["--mib", "1", "--rate", "10", "--requests", "10000"],
    "stress": ["--seconds", "600"],
}


@given(st.text(max_size=12) | st.floats().map(str) | st.integers().map(str))
def test_any_text_is_a_number_within_or_refused(text: str) -> None:
    for parse in (command_line.number(0.5, 7), command_line.whole(1, 7)):
        try:
            value = parse(text)
        except argparse.ArgumentTypeError:
            continue
        assert 0.5 <= value <= 7
        assert math.isclose(value, float(text))


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_says_every_default_and_a_command_to_begin_with(name: str) -> None:
    said = run([sys.executable, WORKLOADS / f"{name}.py", "--help"], timeout=60).text()
    options = said.partition("options:")[2]
    assert options.count("(default:") == options.count("  --")
    command = said.rpartition("example: ")[2].split()
    assert command[:3] == ["python3", "-m", f"workloads.{name}"]


@pytest.mark.parametrize("name", ["service", "file_stream", "memory_walk"])
def test_the_heap_of_a_load_is_never_made_huge(name: str) -> None:
    """khugepaged would charge 2 MiB to the load's cgroup, in some starts."""
    program = WORKLOADS / f"{name}.py"
    process = spawn(
        [sys.executable, program, "--stepwise"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        status = Path("/proc", str(process.pid), "status").read_text()
    finally:
        stop(process)
    if "THP_enabled" not in status:
        pytest.skip("this kernel does not say it (before 5.0)")
    assert "THP_enabled:\t0" in status


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("cpu_bursts", "--burst-ms", "nan"),
        ("cpu_bursts", "--period-ms", "inf"),
        ("cpu_bursts", "--processes", "0"),
        ("file_stream", "--mib", "nan"),
        ("file_stream", "--rate", "1e-9"),
        ("file_stream", "--tree", "/nonexistent"),
        ("memory_walk", "--hot-fraction", "2"),
        ("memory_walk", "--hot-share", "-1"),
        ("memory_walk", "--pause-us", "-1"),
        ("memory_walk", "--seconds", "nan"),
        ("service", "--rate", "nan"),
        ("service", "--rate", "1e-300"),
        ("service", "--settle-s", "inf"),
        ("stress", "--seconds", "nan"),
        ("stress", "--seed", "99999999999999999999"),
    ],
)
def test_wrong_number_is_bad_usage(name: str, option: str, value: str) -> None:
    argv = [sys.executable, str(WORKLOADS / f"{name}.py"), f"{option}={value}"]
    done = run(argv, timeout=60, check=False)
    assert (done.status, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines()[-1].startswith(f"{name}: error: ")


def test_too_much_memory_is_one_line() -> None:
    argv = [sys.executable, str(WORKLOADS / "service.py"), "--mib", str(1 << 40)]
    done = run(argv, timeout=60, check=False)
    assert (done.status, done.stderr) == (3, b"not enough memory for that\n")


def session(leader: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = path.read_text().rpartition(") ")[2].split()[:4]
        except OSError:
            continue
        if int(number) == leader and state not in "ZX":
            found.append(int(path.parent.name))
    return found


@pytest.fixture(params=PROGRAMS)
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A workload that has begun, in a session of its own."""
    name = request.param
    if name == "stress" and shutil.which("stress-ng") is None:
        pytest.skip("needs stress-ng")
    argv = [sys.executable, str(WORKLOADS / f"{name}.py"), *ENDLESS[name]]
    process = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"TMPDIR": os.fspath(tmp_path)},
    )
    # All of them catch SIGTERM when they have read their options.
    caught = Path(f"/proc/{process.pid}/status")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wanted = {"cpu_bursts": 2, "stress": 1}.get(name, 0)
    deadline = time.monotonic() + PATIENCE_S
    while not (
        int(caught.read_text().partition("SigCgt:\t")[2].split()[0], 16) & 1 << signal.SIGTERM - 1
        and len(children.read_text().split()) >= wanted
    ):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield process
    for pid in session(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_without_a_trace_and_leaves_nothing(
    endless: subprocess.Popen[bytes], number: signal.Signals, tmp_path: Path
) -> None:
    endless.send_signal(number)
    out, err = endless.communicate(timeout=PATIENCE_S)
    assert err == b""
    if endless.returncode == 0:  # the usual end of a stream, if it has begun
        assert json.loads(out)["bytes_read"] >= 0
    else:
        assert endless.returncode == 128 + number
    assert session(endless.pid) == []
    assert list(tmp_path.iterdir()) == []


def test_signal_that_comes_while_a_module_is_imported_is_heard() -> None:
    program = f"""
import os, signal, sys
sys.path.insert(0, {os.fspath(WORKLOADS.parent)!r})
from workloads import command_line, service

def in_a_callback(frame, event, argument):  # where Python drops exceptions
    if event == "call" and frame.f_code.co_name == "cb":
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)

def main():
    sys.setprofile(in_a_callback)
    import this
    return service.main(["--mib=1", "--rate=10", "--requests=10000"])

sys.exit(command_line.ended(main))
"""
    done = run([sys.executable, "-c", program], timeout=PATIENCE_S, check=False)
    assert (done.status, done.stderr) == (128 + signal.SIGTERM, b"")


@pytest.mark.parametrize("endless", ["cpu_bursts"], indirect=True)
def test_bursts_end_when_the_first_is_killed(endless: subprocess.Popen[bytes]) -> None:
    assert len(session(endless.pid)) == 3
    endless.kill()
    deadline = time.monotonic() + PATIENCE_S
    while session(endless.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_files_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"x" * 1000)
    (tmp_path / "gone").write_bytes(b"x" * 1000)
    plan = file_stream.StreamPlan(tmp_path, mib=2000 / (1 << 20))
    paths = file_stream.files(plan)
    (tmp_path / "gone").unlink()
    found = file_stream.stream(plan, paths)
    assert (found.bytes_read, found.files_read) == (2000, 2)


def test_what_stress_ng_does_not_know_is_named(tmp_path: Path) -> None:
    old = tmp_path / "stress-ng"  # as one too old for an option says it
    old.write_text(
        "#!/bin/sh\necho \"stress-ng: unrecognized option '--oomable'\" >&2\n"
        "echo \"Try 'stress-ng --help' for more information.\" >&2\nexit 1\n"
    )
    old.chmod(0o755)
    done = run(
        [sys.executable, WORKLOADS / "stress.py"],
        timeout=60,
        check=False,
        environment={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    said, hint = done.stderr.decode().splitlines()
    assert (
        said == "stress: stress-ng ended with status 1: stress-ng: unrecognized option '--oomable'"
    )
    assert "an older stress-ng" in hint
    assert done.status == 3
