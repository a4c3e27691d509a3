from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.harness.lab.process_stat import parse_stat, run_delay_seconds, stat_of
from hyperbox.processes import spawn, stop

_REST = "1 42 42 0 -1 4194304 100 0 0 0 11 22 0 0 20 0 1 0 100 1000 10"


@given(st.text(min_size=0, max_size=15), st.sampled_from("RSDTtZ"))
def test_any_name_of_a_program_is_stepped_over(name: str, state: str) -> None:
    found = parse_stat(f"42 ({name}) {state} {_REST}\n")
    assert (found.state, found.ticks) == (state, 33)


@given(st.text(max_size=40))
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no stat file"):
        parse_stat(text.replace(")", ""))


def test_a_stopped_process_is_told_from_one_that_may_run() -> None:
    process = spawn(["sleep", "600"])
    try:
        assert stat_of(process.pid).halted == ""
        os.kill(process.pid, signal.SIGSTOP)
        while stat_of(process.pid).state != "T":
            time.sleep(0.01)
        assert stat_of(process.pid).halted == "by a signal"
    finally:
        stop(process)
    with pytest.raises(FileNotFoundError):
        stat_of(process.pid)


def test_time_used_is_counted_in_seconds() -> None:
    before = stat_of(os.getpid()).cpu_seconds
    deadline = before + 0.05
    while stat_of(os.getpid()).cpu_seconds < deadline:
        pass
    assert before < deadline <= time.process_time() + 0.02


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this kernel has no CONFIG_SCHED_INFO"
)
def test_two_on_one_processor_wait_for_it() -> None:
    loop = [
        "taskset",
        "--cpu-list",
        str(min(os.sched_getaffinity(0))),
        "sh",
        "-c",
        "while :; do :; done",
    ]
    one, other = spawn(loop), spawn(loop)
    try:
        while min(run_delay_seconds(one.pid), run_delay_seconds(other.pid)) < 0.05:
            time.sleep(0.01)
    finally:
        stop(one)
        stop(other)
    assert run_delay_seconds(one.pid) == 0
