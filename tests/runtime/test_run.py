"""``hyperbox run`` with a real runtime: what the command sees, how it ends, what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperbox.linux.oci_runtime import find_runtime
from hyperbox.repair import left_behind

DONE = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.root


def words(rootfs: Path, *rest: str) -> list[str]:
    return [sys.executable, "-m", "hyperbox", "run", "--rootfs", os.fspath(rootfs), *rest]


@pytest.fixture
def run(rootfs: Path) -> Callable[..., DONE]:
    def call(*rest: str, **settings: object) -> DONE:
        return subprocess.run(
            words(rootfs, *rest), capture_output=True, text=True, check=False, timeout=60
        )

    return call


def test_the_command_sees_what_was_asked_for(run: Callable[..., DONE], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("bound\n")
    script = "pwd; hostname; echo $A; id -u; id -g; cat /data/file; ls /sys/class/net"
    script += "; touch /data/new || echo read-only; cat /proc/self/status"
    options = ("-e", "A=b c", "-w", "/bin", "-u", "12:34", "--hostname", "inside")
    done = run(
        *options, "-v", f"{tmp_path}:/data:ro", "--no-new-privileges", "--", "sh", "-c", script
    )
    lines = done.stdout.splitlines()
    assert lines[:8] == ["/bin", "inside", "b c", "12", "34", "bound", "lo", "read-only"]
    status = dict(line.split(":\t", 1) for line in lines[8:])
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["CapEff"] == "0" * 16
    assert done.returncode == 0


def test_limits_reach_the_cgroup(run: Callable[..., DONE]) -> None:
    done = run(
        "--memory",
        "32m",
        "--",
        "sh",
        "-c",
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null",
    )
    assert done.stdout.split() == [str(32 << 20)]


def test_the_root_is_read_only_if_asked(run: Callable[..., DONE], rootfs: Path) -> None:
    assert run("--", "touch", "/made").returncode == 0
    assert (rootfs / "made").exists()
    assert run("--read-only", "--", "touch", "/made-too").returncode == 1
    assert not (rootfs / "made-too").exists()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        (["nosuch"], 127),
        (["/bin"], 126),
        (["/text"], 126),
    ],
)
def test_exit_codes_are_dockers(run: Callable[..., DONE], command: list[str], status: int) -> None:
    done = run("--", *command)
    assert done.returncode == status
    assert ("was not started" in done.stderr) is (status in (126, 127))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rootfs", "/etc/passwd"], "is not a directory"),
        (["--seccomp", "nosuch"], "no profile is called nosuch"),
        (["--memory", "lots"], "a size such as 512m"),
        (["--cap-add", "no cap"], "is not a capability"),
        (["-v", "/nosuch:/x"], "/nosuch does not exist"),
    ],
)
def test_bad_usage_is_one_line(
    run: Callable[..., DONE], tmp_path: Path, options: list[str], message: str
) -> None:
    done = run("--store", os.fspath(tmp_path), *options, "--", "true")
    assert done.returncode == 64
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_signals_reach_the_command(rootfs: Path) -> None:
    script = "trap 'echo heard; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(
        words(rootfs, "--", "sh", "-c", script), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "heard\n"
    assert process.returncode == 5


def test_nothing_is_left_after_sigkill_and_repair(rootfs: Path) -> None:
    command = words(rootfs, "--", "sh", "-c", "echo ready; sleep 600")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    process.stdout.close()
    (change,) = (c for c in left_behind([process.pid]) if c.kind == "container")
    runtime = find_runtime(Path(change.text("root")).parent, change.text("name"))
    repaired = subprocess.run(
        [sys.executable, "-m", "hyperbox", "doctor", "--repair"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"container {change.subject}" in repaired.stdout
    assert not runtime.knows(change.subject)
    assert not Path(change.text("bundle")).exists()
    assert left_behind([process.pid]) == ()
    deadline = time.monotonic() + 10
    while (groups := list(Path("/sys/fs/cgroup").rglob(f"*{change.subject}*"))) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert groups == []


def test_a_profile_is_learned_and_enforced(run: Callable[..., DONE], tmp_path: Path) -> None:
    store = ("--store", os.fspath(tmp_path / "store"))
    first = run(*store, "--learn-seccomp=demo", "--", "sh", "-c", "echo hi; ls / >/dev/null")
    assert (first.returncode, first.stdout) == (0, "hi\n")
    assert "profile demo, version 1" in first.stderr
    again = run(*store, "--seccomp", "demo", "--", "sh", "-c", "echo hi; ls / >/dev/null")
    assert (again.returncode, again.stdout) == (0, "hi\n")
    denied = run(*store, "--seccomp", "demo", "--", "hostname", "-F", "/text")
    assert denied.returncode != 0
    second = run(*store, "--learn-seccomp=demo", "--", "sh", "-c", "id >/dev/null")
    assert "version 2: 2 runs" in second.stderr

    def seccomp(*rest: str) -> DONE:
        return subprocess.run(
            [sys.executable, "-m", "hyperbox", "seccomp", *rest, *store],
            capture_output=True,
            text=True,
            check=False,
        )

    assert json.loads(seccomp("list", "--json").stdout) == [
        {"name": "demo", "version": 2, "runs": 2}
    ]
    proof = json.loads(seccomp("validate", "demo", "--json").stdout)
    assert proof["holds"] is True
    assert proof["size"]["names"] < proof["default_size"]["names"] / 2
    assert json.loads(seccomp("rollback", "demo", "--json").stdout) == {"version": 1}
    exported = json.loads(seccomp("export", "demo").stdout)
    assert exported["defaultAction"] == "SCMP_ACT_ERRNO"
    assert seccomp("rollback", "demo").returncode == 64
    assert seccomp("show", "other").returncode == 64


def test_what_a_profile_lacks_is_named_and_merged(rootfs: Path, tmp_path: Path) -> None:
    def hyperbox(*rest: str) -> DONE:
        return subprocess.run(
            [sys.executable, "-m", "hyperbox", *rest, "--", "touch", "-d@0", "/made"]
            if "--rootfs" in rest
            else [sys.executable, "-m", "hyperbox", *rest],
            capture_output=True,
            text=True,
            check=False,
        )

    store = ("--store", os.fspath(tmp_path / "store"))
    root = ("--rootfs", os.fspath(rootfs))
    learned = subprocess.run(words(rootfs, *store, "--learn-seccomp=demo", "--", "ls"), check=False)
    assert learned.returncode == 0
    found = hyperbox("seccomp", "audit", "demo", "--json", *store, *root)
    assert found.returncode == 1, found.stderr
    missing = json.loads(found.stdout)["missing"]
    assert missing
    assert all(programs == ["/bin/busybox"] for programs in missing.values())
    merged = hyperbox("seccomp", "audit", "demo", "--merge", *store, *root)
    assert merged.returncode == 0, merged.stderr
    again = hyperbox("seccomp", "audit", "demo", *store, *root)
    assert (again.returncode, again.stdout) == (0, "demo allows every call of this run\n")
    differences = json.loads(hyperbox("seccomp", "diff", "demo@1", "demo", "--json", *store).stdout)
    assert differences["removed"] == []
    added = {line.partition(":")[0] for line in differences["added"]}
    assert set(missing) <= added
    copied = json.loads(hyperbox("seccomp", "merge", "copy", "demo", "--json", *store).stdout)
    assert copied == {"version": 1, "recordings": 2}
    assert hyperbox("seccomp", "diff", "demo", "copy", *store).stdout == "both allow the same\n"
    assert hyperbox("seccomp", "diff", "demo@x", "copy", *store).returncode == 64
    assert hyperbox("seccomp", "merge", "copy", "nosuch", *store).returncode == 64
