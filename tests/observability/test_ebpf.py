"""The tracer on this machine's kernel: exact counts, lives, single calls, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from hyperbox.linux.cgroup import cgroup_root
from hyperbox.linux.mounts import mounted
from hyperbox.linux.perf_counter import tracepoint_counter
from hyperbox.observability import attributes as names
from hyperbox.observability.command import let_go, stopped_command
from hyperbox.observability.ebpf import Tracer, Window
from hyperbox.observability.instrument import Filter, Scope
from hyperbox.observability.modes import Mode
from hyperbox.observability.tallies import abi_of, call_name, errors_of, process_of
from hyperbox.observability.windows import SpanMaker, errno_name

pytestmark = pytest.mark.root

# 321 calls of one number in each of two threads, 9 that fail.
KNOWN = """
import ctypes, threading
libc = ctypes.CDLL(None, use_errno=True)
def work():
    for _ in range(321): libc.syscall(312, 0, 0, 99, 0, 0)
threads = [threading.Thread(target=work) for _ in range(2)]
for one in threads: one.start()
for one in threads: one.join()
for _ in range(9): libc.syscall(3, 9999)
"""
CHURN = "import os\nfor _ in range(200):\n    if not os.fork(): os._exit(0)\n    os.wait()\n"


def traced(
    program: str, *, mode: Mode = Mode.HYBRID, perf: bool | None = None
) -> tuple[list[Window], Tracer, int]:
    """Trace a Python program from its execve to its end; windows, and its process number."""
    windows: list[Window] = []
    with (
        stopped_command([sys.executable, "-c", program]) as process,
        Tracer(Scope(Filter.TREE), mode=mode, perf=perf) as tracer,
    ):
        tracer.instrument.await_execve(process.pid)
        let_go(process)
        while process.poll() is None:
            time.sleep(0.02)
            tracer.poll()
            if len(windows) < 2:
                windows.append(tracer.read())
        windows.append(tracer.stop())
    return windows, tracer, process.pid


def counts(windows: Sequence[Window]) -> Mapping[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for window in windows:
        for row in window.tallies:
            key = process_of(int(row["key"])), call_name(int(row["key"]))
            found[key] = found.get(key, 0) + int(row["count"])
    return found


def lost_calls(windows: Sequence[Window]) -> int:
    return sum(window.lost.get("not_run", 0) for window in windows)


@pytest.mark.parametrize("perf", [False, True])
@pytest.mark.parametrize("mode", [Mode.FULL, Mode.HYBRID, Mode.COUNT])
def test_counts_are_exact_in_every_mode(mode: Mode, perf: bool) -> None:
    windows, _, pid = traced(KNOWN, mode=mode, perf=perf)
    found = counts(windows)
    assert found[pid, "kcmp"] == 642
    assert found[pid, "execve"] == found[pid, "exit_group"] == 1
    assert lost_calls(windows) == 0
    errors: dict[int, int] = {}
    for window in windows:
        rows = [row for row in window.tallies if call_name(int(row["key"])) == "close"]
        for number, count in errors_of(np.array(rows, window.tallies.dtype)).items():
            errors[number] = errors.get(number, 0) + count
    assert errors.get(9, 0) == (0 if mode is Mode.COUNT else 9)  # EBADF


def test_full_mode_reports_every_call_that_returns() -> None:
    windows, _, pid = traced(KNOWN, mode=Mode.FULL)
    reported = [
        record
        for window in windows
        for record in window.calls
        if process_of(int(record["key"])) == pid and call_name(int(record["key"])) == "kcmp"
    ]
    assert len(reported) == 642
    assert len({int(record["thread"]) for record in reported}) == 2


def test_calls_of_other_abis_have_their_own_names() -> None:
    """Seven by int 0x80, where 20 is getpid, and five with the bit of x32."""
    program = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
for _ in range(7): call()
libc = ctypes.CDLL(None)
for _ in range(5): libc.syscall(0x40000000 | 110)
"""
    windows, _, pid = traced(program)
    if any(life.status & 0x7F for window in windows for life in window.ended):
        pytest.skip("this kernel has no 32-bit entry (CONFIG_IA32_EMULATION)")
    found: dict[tuple[str, str], int] = {}
    for row in (row for window in windows for row in window.tallies):
        key = int(row["key"])
        assert process_of(key) == pid
        if abi_of(key) != "x86_64":
            name = abi_of(key), call_name(key)
            found[name] = found.get(name, 0) + int(row["count"])
    assert found == {("i386", "getpid"): 7, ("x32", "getppid"): 5}


def test_processes_that_come_and_go_are_counted_whole() -> None:
    windows, _, pid = traced(CHURN)
    found = counts(windows)
    ended = [life for window in windows for life in window.ended if life.parent == pid]
    assert len(ended) == 200
    assert all(life.calls and life.comm for life in ended)
    assert sum(life.calls for window in windows for life in window.ended) == sum(found.values())
    assert sum(count for (_, call), count in found.items() if call == "exit_group") == 201
    assert found[pid, "wait4"] == 200
    assert all(life.status == 0 and life.end_ns >= life.start_ns for life in ended)


def test_a_full_table_loses_processes_and_no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few places most processes' calls are counted without the process."""
    monkeypatch.setattr("hyperbox.observability.instrument._MOST_SLOTS", 4)
    monkeypatch.setattr("hyperbox.observability.instrument._FEWEST_SLOTS", 4)
    windows, _, _ = traced(CHURN)
    found = sum(count for (_, call), count in counts(windows).items() if call == "exit_group")
    spilled = sum(
        count
        for window in windows
        for key, count in window.unattributed.items()
        if call_name(key) == "exit_group"
    )
    assert spilled > 0
    assert found + spilled == 201


def test_what_is_not_traced_is_not_counted() -> None:
    with Tracer(Scope(Filter.TREE)) as tracer:
        subprocess.run(["true"], check=True)
        window = tracer.stop()
    assert window.count == 0
    assert window.skipped > 0


def test_a_call_in_which_a_task_is_killed_is_reported() -> None:
    program = "import os, signal, threading, time\n"
    program += "threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()\n"
    windows, tracer, pid = traced(program + "time.sleep(60)")
    (life,) = [life for window in windows for life in window.ended if life.process == pid]
    assert life.status == signal.SIGKILL
    killed = [
        call_name(int(record["key"]))
        for window in windows
        for record in window.calls
        if errno_name(-int(record["result"])).startswith("ERESTART")
    ]
    assert "clock_nanosleep" in killed
    assert list(tracer.lives.running()) == []


def test_a_thread_that_executes_keeps_its_call() -> None:
    """The thread takes the number of its process in the midst of execve."""
    program = "import os, threading, time\n"
    program += "threading.Thread(target=lambda: os.execv('/bin/true', ['true'])).start()\n"
    windows, _, pid = traced(program + "time.sleep(60)", mode=Mode.FULL)
    calls = [record for window in windows for record in window.calls]
    executed = [one for one in calls if call_name(int(one["key"])) == "execve"]
    assert [int(one["result"]) for one in executed] == [0, 0]
    assert {int(one["thread"]) for one in executed} == {pid}
    (life,) = [life for window in windows for life in window.ended]
    assert (life.comm, life.executable) == ("true", "/bin/true")


def test_the_change_to_events_counts_no_call_twice() -> None:
    """Where a preempted program keeps others out (7.3), the tracer changes while calls run."""
    with (
        mounted("tracefs", Path("/sys/kernel/tracing")) as tracing,
        stopped_command([sys.executable, "-c", KNOWN.replace("321", "30_000")]) as process,
        tracepoint_counter(tracing, "raw_syscalls/sys_enter", process.pid) as counter,
        Tracer(Scope(Filter.TREE), mode=Mode.HYBRID) as tracer,
    ):
        tracer.instrument.await_execve(process.pid)
        let_go(process)
        time.sleep(0.05)
        assert tracer.instrument.use_events()
        process.wait()
        window = tracer.stop()
        counted = counter.read() + 1
    assert window.count == counted
    assert counts([window])[process.pid, "kcmp"] == 60_000


@pytest.fixture
def group() -> Iterator[Path]:
    path = cgroup_root() / f"hyperbox-test-{os.getpid()}"
    path.mkdir()
    yield path
    path.rmdir()


def test_a_cgroup_is_traced_with_what_moves_into_it(group: Path) -> None:
    program = f"open('{group}/cgroup.procs', 'w').write('0')\n" + KNOWN
    with Tracer(Scope(Filter.CGROUP, group)) as tracer:
        with subprocess.Popen([sys.executable, "-c", program]) as process:
            process.wait()
        window = tracer.stop()
    assert counts([window])[process.pid, "kcmp"] == 642
    assert {process_of(int(key)) for key in window.tallies["key"]} == {process.pid}


def test_modes_change_while_calls_are_in_flight() -> None:
    """What was entered in one mode does not end as another call in the next."""
    with (
        subprocess.Popen([sys.executable, "-c", "while True: open('/dev/null').close()"]) as busy,
        Tracer(Scope(Filter.TREE), mode=Mode.COUNT) as tracer,
    ):
        tracer.add_tree(busy.pid)
        for mode in (Mode.FULL, Mode.COUNT, Mode.HYBRID, Mode.OFF, Mode.FULL):
            tracer.instrument.change(mode)
            time.sleep(0.02)
            tracer.poll()
        busy.kill()
        busy.wait()
        window = tracer.stop()
    assert len(window.calls)
    ended = {call_name(int(one["key"])) for one in window.calls if one["result"] < 0}
    assert ended <= {"ioctl", "lseek"}  # no call on a file that opens and closes fails but these


def test_spans_carry_every_count() -> None:
    windows, _, pid = traced(KNOWN)
    maker = SpanMaker({"host.name": "here"})
    spans = [
        (batch.resource.attributes, span)
        for window in windows
        for batch in maker.spans(window)
        for span in batch.spans
    ]
    total = 0
    for resource, span in spans:
        assert span.end_unix_ns >= span.start_unix_ns
        if span.attributes[names.SPAN_KIND] != "window":
            continue
        assert resource[names.PROCESS_PID] == pid
        counted = span.attributes[names.WINDOW_COUNTS]
        assert isinstance(counted, list)
        total += sum(counted)
    (life,) = [span for _, span in spans if span.attributes[names.SPAN_KIND] == "process"]
    assert total == life.attributes[names.PROCESS_CALLS] == sum(window.count for window in windows)
    assert {span.trace_id for _, span in spans if span.attributes.get(names.THREAD_ID)} == {
        life.trace_id
    }
    failed = [span for _, span in spans if span.attributes.get(names.ERROR_TYPE) == "EBADF"]
    assert failed
    assert failed[0].error == "EBADF"


def test_calls_taken_at_once_are_below_the_window_that_comes_later() -> None:
    maker, early, late = SpanMaker(), [], []
    with (
        subprocess.Popen(
            [sys.executable, "-c", "import time\nwhile True: time.sleep(.01)"]
        ) as process,
        Tracer(Scope(Filter.TREE), mode=Mode.FULL) as tracer,
    ):
        tracer.add_tree(process.pid)
        for _ in range(3):
            for _ in range(3):
                time.sleep(0.05)
                early += maker.calls(tracer.take_calls(), tracer.window_start_ns)
            window = tracer.read()
            assert len(window.calls) < sum(window.tallies["count"])
            late += maker.spans(window)
        process.kill()
    ahead = [span for batch in early for span in batch.spans]
    assert {span.attributes[names.SPAN_KIND] for span in ahead} == {"call"}
    spans = [*ahead, *(span for batch in late for span in batch.spans)]
    assert len({span.span_id for span in spans}) == len(spans)
    windows = {
        span.span_id for span in spans if span.attributes[names.SPAN_KIND] in ("window", "process")
    }
    parents = {span.parent_span_id for span in ahead}
    assert len(parents) >= 3
    assert len(parents - windows) <= 1  # what began before its window is below the process


def test_calls_taken_at_once_leave_a_place_for_later_ones() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "while True: open('/dev/null').close()"]) as busy,
        Tracer(Scope(Filter.TREE)) as tracer,
    ):
        tracer.add_tree(busy.pid)
        taken = []
        for _ in range(4):
            time.sleep(0.05)
            taken.append(len(tracer.take_calls()))
        busy.kill()
        busy.wait()
        window = tracer.stop()
    assert all(taken)
    assert sum(taken) <= tracer.governor.most_spans(1_000_000_000)
    assert window.lost["span_limit"] > 0


def test_nothing_is_left_in_the_kernel() -> None:
    def loaded() -> int:
        count = 0
        for described in Path("/proc/self/fdinfo").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
                count += "prog_type" in described.read_text()
        return count

    before = loaded()
    with Tracer(Scope(Filter.ALL)):
        assert loaded() > before
    assert loaded() == before
