"""The service does the same work for the same seed; the stream reads what is there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.processes import run, spawn, stop
from workloads import file_stream
from workloads.file_stream import files, stream
from workloads.memory_walk import PAGE, fill
from workloads.memory_walk import WalkPlan as Walk
from workloads.service import ServicePlan, main, serve, touched

ROOT = Path(__file__).parents[2]
SERVICE, STREAM = (ROOT / "workloads" / f"{name}.py" for name in ("service", "file_stream"))


@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(0, 20),
    st.integers(0, 2**32),
)
def test_touches_are_those_of_the_plan(
    mib: int, requests: int, touches: int, warm_up: int, seed: int
) -> None:
    plan = ServicePlan(mib, requests, touches, warm_up=warm_up, seed=seed)
    sequence = touched(plan)
    assert len(sequence) == (warm_up + requests) * touches
    places = [~offset if offset < 0 else offset for offset in sequence]
    assert all(0 <= place < mib << 20 and place % PAGE == PAGE // 2 for place in places)
    assert sequence == touched(plan)


@pytest.mark.parametrize("rate", [0.0, 2000.0])
def test_every_request_is_served_and_counted(rate: float) -> None:
    plan = ServicePlan(1, 30, 4, rate=rate, write_share=1.0, hot_share=0.0)
    memory = fill(Walk(1, 1))
    sequence = touched(plan)
    found = serve(plan, memory, sequence)
    assert (found.requests, found.touches) == (30, 120)
    assert 0 < found.p50_ns <= found.p99_ns <= found.max_ns
    assert found.late <= 30
    if not rate:
        assert found.late == 0
    assert all(memory[~offset] == 1 for offset in sequence)


def test_a_request_that_comes_late_counts_from_when_it_was_due() -> None:
    """A rate that nothing can keep: each request waits for all before it."""
    plan = ServicePlan(1, 200, 4, rate=1e9)
    found = serve(plan, fill(Walk(1, 1)), touched(plan))
    assert found.late >= 199
    assert found.max_ns > 50 * found.elapsed_ns / 200


@pytest.mark.parametrize(
    "wrong", [["--mib", "0"], ["--rate", "-1"], ["--hot-share", "1.1"], ["--think-us", "-1"]]
)
def test_impossible_plans_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(wrong)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("program", [SERVICE, STREAM])
def test_both_run_alone_by_path_and_as_modules(program: Path, tmp_path: Path) -> None:
    module = f"workloads.{program.stem}"
    by_path = run([sys.executable, program, "--help"], timeout=60, cwd=tmp_path)
    as_module = run([sys.executable, "-m", module, "--help"], timeout=60, cwd=ROOT)
    assert b"--seed" in by_path.stdout
    assert by_path.stdout == as_module.stdout


def test_a_led_service_waits_at_every_step() -> None:
    argv = [
        sys.executable,
        str(SERVICE),
        "--stepwise",
        "--mib",
        "1",
        "--requests",
        "5",
        "--warm-up",
        "2",
    ]
    process = spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin
        assert process.stdout
        for step in (b"started", b"filled", b"warm"):
            assert process.stdout.readline().strip() == step
            process.stdin.write(b"\n")
            process.stdin.flush()
        assert json.loads(process.stdout.readline())["requests"] == 5
        assert process.wait(60) == 0
    finally:
        stop(process)


def tree(top: Path) -> Path:
    for number in range(6):
        path = top / f"d{number % 2}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100_000))
    (top / "link").symlink_to(top / "d0" / "f0")
    return top


def test_files_come_in_the_order_of_the_seed_and_links_do_not(tmp_path: Path) -> None:
    plan = file_stream.StreamPlan(tree(tmp_path))
    orders = {files(file_stream.StreamPlan(tmp_path, seed=seed)) for seed in range(8)}
    assert len(orders) > 1
    assert files(plan) == files(plan)
    assert {len(order) for order in orders} == {6}


def test_as_much_is_read_as_was_asked_for(tmp_path: Path) -> None:
    plan = file_stream.StreamPlan(tree(tmp_path), mib=1.0)
    found = stream(plan, files(plan))
    assert 1 << 20 <= found.bytes_read < (1 << 20) + 200_000
    assert found.files_read == 11  # more than there are: they are read again


def test_a_tree_without_anything_is_one_line(tmp_path: Path) -> None:
    done = run([sys.executable, STREAM, "--tree", tmp_path, "--mib", "1"], timeout=60, check=False)
    assert done.status == 1
    assert done.stderr.decode().startswith("file_stream: nothing to read below ")


def test_termination_is_the_usual_end_of_a_stream(tmp_path: Path) -> None:
    argv: list[str | Path] = [
        sys.executable,
        STREAM,
        "--stepwise",
        "--tree",
        tree(tmp_path),
        "--rate",
        "0.5",
    ]
    process = spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"started\n"
        process.stdin.write(b"\n")
        process.stdin.flush()
        # Its first piece is read at once; before that the signal would find it unprepared.
        while b"f" not in b"".join(
            path.readlink().name.encode()[:1]
            for path in Path(f"/proc/{process.pid}/fd").iterdir()
            if path.readlink().is_relative_to(tmp_path)
        ):
            pass
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.readline())["bytes_read"] > 0
        assert process.wait(60) == 0
    finally:
        stop(process)
