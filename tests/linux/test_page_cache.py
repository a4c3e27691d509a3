"""Dropping cached pages of open files, and asking a cgroup for its page cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperbox.errors import KernelFeatureMissing
from hyperbox.linux.page_cache import can_reclaim_files, drop_open_files, reclaim_files
from hyperbox.processes import run, spawn, stop

SIZE = 1 << 20


def cached(path: Path) -> int:
    """Bytes of a file that are in memory."""
    done = run(["fincore", "--noheadings", "--bytes", "--output", "RES", path], timeout=30)
    return int(done.text())


def test_open_files_of_a_process_lose_their_clean_pages(tmp_path: Path) -> None:
    path = tmp_path / "streamed"
    path.write_bytes(os.urandom(SIZE))
    os.sync()
    path.read_bytes()
    if cached(path) != SIZE:
        pytest.skip("this file system does not keep what is read")
    program = "import sys; held = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    process = spawn(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert drop_open_files(process.pid) == 1
    finally:
        stop(process)
    if cached(path) == SIZE:
        pytest.skip("this file system keeps its pages whatever is said")  # tmpfs
    assert cached(path) == 0


def test_process_that_is_gone_has_no_files() -> None:
    process = spawn(["true"])
    process.wait()
    assert drop_open_files(process.pid) == 0


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    handle = os.open(tmp_path / "fifo", os.O_RDWR)
    program = "import sys; print('started', flush=True); sys.stdin.read()"
    process = spawn([sys.executable, "-c", program], stdin=handle, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # before, it may have its libraries open
        assert drop_open_files(process.pid) == 0
    finally:
        os.close(handle)
        stop(process)


def test_what_is_asked_for_is_what_was_used_once(tmp_path: Path) -> None:
    assert not can_reclaim_files(tmp_path)
    (tmp_path / "memory.reclaim").write_text("")
    (tmp_path / "memory.stat").write_text("file 9999\ninactive_file 4096\n")
    assert can_reclaim_files(tmp_path)
    assert reclaim_files(tmp_path) == 4096
    assert (tmp_path / "memory.reclaim").read_text().startswith("4096 swappiness=0")
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    assert reclaim_files(tmp_path) == 0


def test_cgroup_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(KernelFeatureMissing, match=r"memory\.stat"):
        reclaim_files(tmp_path / "gone")
    (tmp_path / "memory.stat").write_text("inactive_file 4096\n")
    with pytest.raises(KernelFeatureMissing, match=r"cannot write .* to .*memory\.reclaim"):
        reclaim_files(tmp_path)
