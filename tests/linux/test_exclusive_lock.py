"""One holder at a time, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hyperbox.errors import HarnessError, WorkloadError
from hyperbox.linux.exclusive_lock import exclusive_lock
from hyperbox.processes import spawn, stop

ROOT = Path(__file__).parents[2]
HOLDER = (
    "import sys, pathlib\nfrom hyperbox.linux.exclusive_lock import exclusive_lock\n"
    "with exclusive_lock(pathlib.Path(sys.argv[1]), 'a test'):\n"
    "    print('held', flush=True); sys.stdin.read()\n"
)


def test_second_holder_is_told_who_has_it_and_death_frees_it(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / "lock"
    process = spawn(
        [sys.executable, "-c", HOLDER, lock],
        environment={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with (
            pytest.raises(HarnessError, match=f"a test runs already, as process {process.pid}$"),
            exclusive_lock(lock, "a test"),
        ):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with exclusive_lock(lock, "a test"):
            assert lock.read_text() == f"{os.getpid()}\n"
    finally:
        stop(process)


def test_place_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(WorkloadError, match="cannot make"),
        exclusive_lock(tmp_path / "file" / "lock", "a test"),
    ):
        pass
