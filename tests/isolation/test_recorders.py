"""The recorders that need no BPF see what BPF sees, count what they lose, and leave nothing."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.errors import KernelFeatureMissing
from hyperbox.isolation.audit_recorder import AuditRecorder
from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.families import FLOOR
from hyperbox.isolation.notify_recorder import NotifyRecorder
from hyperbox.isolation.profile import FilterAction
from hyperbox.isolation.recorders import BACK_ENDS, chosen_recorder
from hyperbox.isolation.recording import Recording
from hyperbox.isolation.watching import watched
from hyperbox.linux.audit import AuditListener, SeccompRecord, parse_seccomp_record
from hyperbox.linux.oci_runtime import find_runtime
from hyperbox.linux.seccomp import log_own_call
from hyperbox.runtime.containers import prepared
from hyperbox.runtime.recording import audited_run, recorded_run
from suites.seccomp.learning import container, container_root

LOGIN = Path("/proc/thread-self/loginuid")
UNWATCHED = {"clone", "epoll_create1", "epoll_pwait", "eventfd2", "pipe2"}
SCRIPT = "cat /nosuch; mkdir /tmp/a; sort /etc/passwd > /tmp/a/b; rm -r /tmp/a; kill -0 $$"


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is left of a run that is cut off here is no leftover to the tests beside it."""
    with tempfile.TemporaryDirectory() as short:  # sockets lie below it
        monkeypatch.setenv("HYPERBOX_STATE", short)
        yield


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with container_root() as made:
        yield made


def recording(root: Path, tmp_path: Path, *back_ends: str, script: str = SCRIPT) -> Recording:
    runtime = find_runtime(tmp_path).name
    with prepared(container(root, script, default_profile()), runtime=runtime) as running:
        found = recorded_run(running, default_profile(), back_ends, stdin=subprocess.DEVNULL)
    assert str(found.ended) == "exit 0"
    return found.recording


@pytest.mark.root
def test_every_back_end_sees_the_same_calls(root: Path, tmp_path: Path) -> None:
    seen = {name: recording(root, tmp_path, name) for name in BACK_ENDS}
    assert {name: found.back_end for name, found in seen.items()} == {n: n for n in BACK_ENDS}
    for found in seen.values():
        # Which of the floor's calls runc's own threads make before the program is by chance.
        extra = found.names - seen["bpf"].names - FLOOR
        assert extra <= (UNWATCHED if found.back_end == "notify" else set())
        assert seen["bpf"].names <= found.names | FLOOR
        assert found.lost == 0
    for name in ("audit", "notify"):
        assert {"/usr/bin/cat", "/usr/bin/sort"} <= seen[name].programs
        assert "/" not in seen[name].programs


@pytest.mark.root
def test_what_a_profile_would_deny_is_named_with_its_program(root: Path, tmp_path: Path) -> None:
    default = default_profile()
    known = default.allowed() - {"mkdir", "mkdirat"}
    poor = watched(default, FilterAction.ERRNO, known)
    runtime = find_runtime(tmp_path).name
    with prepared(container(root, SCRIPT, poor), runtime=runtime) as running:
        found = audited_run(running, poor, default, stdin=subprocess.DEVNULL)
    assert str(found.ended) == "exit 0"
    assert len(found.recording.names) == 1
    assert found.recording.names <= {"mkdir", "mkdirat"}
    (name,) = found.recording.names
    assert found.denials[name] == {"/usr/bin/mkdir"}


@pytest.mark.root
def test_records_that_do_not_fit_are_counted() -> None:
    """The kernel saw every call; what did not reach us is in the count."""
    calls = 3000
    with AuditListener(buffer_bytes=4096) as listener:
        held = listener._arrived
        script = f"import ctypes; [ctypes.CDLL(None).syscall(0x3FFFFFF5) for _ in range({calls})]"
        program = (
            "from hyperbox.linux import seccomp\n"
            "seccomp._log_call(0x3FFFFFF5)\n"  # this thread stays under the filter
            f"{script}\n"
        )
        with held:
            log_own_call(0x3FFFFFF0)
            subprocess.run([sys.executable, "-c", program], check=True)
        lost = listener.finish()
        seen = sum(n for one, n in listener.records.items() if one.number == 0x3FFFFFF5)
    assert lost > 0
    assert seen < calls + 1
    assert seen + lost >= calls + 1


@pytest.mark.root
def test_the_session_is_put_back() -> None:
    before = LOGIN.read_text()
    with AuditListener() as listener:
        subprocess.run(["true"], check=True)
        assert listener.session != 0xFFFFFFFF
        assert listener.finish() == 0
    assert LOGIN.read_text() == before


@pytest.mark.root
def test_if_none_works_every_reason_is_given(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path\n"
        "from hyperbox.isolation.default_profile import default_profile\n"
        "from hyperbox.isolation.recorders import chosen_recorder\n"
        "from hyperbox.errors import KernelFeatureMissing\n"
        "default_profile(); import hyperbox.linux.syscalls\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "  with chosen_recorder('x', Path('/'), default_profile(), back_ends=('bpf', 'audit')):\n"
        "    pass\n"
        "except KernelFeatureMissing as error: print(error.message)\n"
    )
    environment = {"HYPERBOX_STATE": "/tmp/hyperbox-nobody", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "no recorder works here: bpf: " in done.stdout, done.stderr
    assert "audit: " in done.stdout


def test_a_record_is_read_as_the_kernel_writes_it() -> None:
    text = (
        b'audit(1796101888.242:2): auid=0 uid=0 gid=0 ses=7 subj=unconfined pid=22 comm="sh" '
        b'exe="/usr/bin/dash" sig=0 arch=c000003e syscall=165 compat=0 ip=0x7f code=0x50000'
    )
    wanted = SeccompRecord(7, 0xC000003E, 165, 0x50000, "/usr/bin/dash")
    assert parse_seccomp_record(text) == wanted
    hexed = text.replace(b'"/usr/bin/dash"', b"2F612062")
    assert parse_seccomp_record(hexed) == wanted._replace(program="/a b")
    assert parse_seccomp_record(text.replace(b'exe="/usr/bin/dash"', b"exe=(null)")) is not None
    assert parse_seccomp_record(b"") is None


def test_a_watched_profile_lets_through_what_the_default_does() -> None:
    default = default_profile()
    logged = watched(default, FilterAction.LOG)
    assert logged.allowed() == frozenset()
    names = {n for rule in logged.rules if rule.action is FilterAction.LOG for n in rule.names}
    assert names == default.allowed()
    assert watched(default, FilterAction.LOG, default.allowed()) == default.canonical()
    known = watched(default, FilterAction.NOTIFY, frozenset({"read"}))
    assert known.allowed() == {"read"}


def test_names_of_back_ends() -> None:
    assert BACK_ENDS[1:] == (AuditRecorder.name, NotifyRecorder.name)


def test_no_back_end_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(KernelFeatureMissing, match="no recorder works here"),
        chosen_recorder("x", tmp_path, default_profile(), back_ends=()),
    ):
        pass
