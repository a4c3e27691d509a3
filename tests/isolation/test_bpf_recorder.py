"""The recorder on this machine's kernel: exact, complete, and gone when it ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.errors import KernelFeatureMissing
from hyperbox.isolation.bpf_recorder import BpfRecorder, recording_of
from hyperbox.linux.bpf import member_offset
from hyperbox.linux.syscalls import Abi, name_of, numbers

UNIFIED = next(
    (
        p
        for p in map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"))
        if (p / "cgroup.procs").exists()
    ),
    None,
)
ENTER = "import os; open(os.environ['GROUP'] + '/cgroup.procs', 'w').write('0')\n"
# Two calls with known counts before the filter, two under it.
FILTERED = (
    ENTER
    + """
import ctypes
from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.seccomp_gen import apply
libc = ctypes.CDLL(None)
for _ in range(7): libc.syscall(312, 0, 0, 99, 0, 0)
profile = default_profile()
apply(profile)
for _ in range(123): libc.syscall(25, 0, 0, 0, 0)
os.execv("/bin/true", ["true"])
"""
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(UNIFIED is None, reason="no cgroup version 2 on this machine"),
]


@pytest.fixture
def group() -> Iterator[Path]:
    assert UNIFIED is not None
    path = UNIFIED / f"hyperbox-test-{os.getpid()}"
    path.mkdir()
    yield path
    path.rmdir()


def run_in(group: Path, program: str) -> int:
    environment = {**os.environ, "GROUP": str(group)}
    return subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode


def test_calls_are_counted_exactly_and_told_apart_by_filter(group: Path) -> None:
    with BpfRecorder(group) as recorder:
        assert run_in(group, FILTERED) == 0
        counts = recorder.counts()
        recording = recorder.recording("exit 0")
    table = numbers(Abi.X86_64)
    assert counts[table["kcmp"], 0, 0] == 7
    assert counts[table["mremap"], 0, 2] == 123
    assert "mremap" in recording.calls[Abi.X86_64]
    assert "kcmp" in recording.start_calls
    assert "kcmp" not in recording.names
    assert {"execve", "exit_group"} <= recording.names
    assert "/bin/true" in recording.programs
    assert recording.lost == 0
    # Nothing that the kernel counted is missing from the recording.
    seen = {name_of(number, Abi.I386 if compat else Abi.X86_64) for number, compat, _ in counts}
    assert seen == recording.names | recording.start_calls


def test_only_the_cgroup_is_recorded(group: Path) -> None:
    with BpfRecorder(group) as recorder:
        subprocess.run(["true"], check=True)
        assert recorder.counts() == {}


def test_nothing_is_left_in_the_kernel(group: Path) -> None:
    def loaded() -> int:
        count = 0
        for described in Path("/proc/self/fdinfo").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
                count += "prog_type" in described.read_text()
        return count

    before = loaded()
    with BpfRecorder(group):
        assert loaded() > before
    assert loaded() == before


def test_a_missing_right_is_one_clear_line(group: Path) -> None:
    # Imports first: another user may not read this checkout.
    program = (
        "import os; from pathlib import Path\n"
        "from hyperbox.isolation.bpf_recorder import BpfRecorder\n"
        "from hyperbox.errors import KernelFeatureMissing\n"
        "recorder = BpfRecorder(Path(os.environ['GROUP']))\n"
        "data = Path(recorder.OBJECT).read_bytes(); copy = Path('/tmp') / f'hb-{os.getpid()}.o'\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "copy.write_bytes(data); recorder.OBJECT = copy\n"
        "try: recorder.__enter__()\n"
        "except KernelFeatureMissing as error: print(error.message, '|', error.hint)\n"
        "finally: copy.unlink()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "GROUP": str(group)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Operation not permitted" in done.stdout
    assert "CAP_BPF" in done.stdout


def test_offsets_come_from_the_running_kernel() -> None:
    assert member_offset("thread_info", "flags") == 0
    assert member_offset("task_struct", "no such member") is None
    assert member_offset("no such structure", "x") is None


def test_without_btf_it_says_so() -> None:
    with pytest.raises(KernelFeatureMissing, match="no BTF"):
        recording_of({(0, 255, 255): 1}, set(), 0, "exit 0")
