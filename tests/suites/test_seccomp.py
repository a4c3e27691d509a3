"""Suite seccomp: its patterns run here, and a profile that lacks a call is found out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.recording import Recording
from hyperbox.isolation.seccomp_gen import generate
from hyperbox.linux.oci_runtime import find_runtime
from hyperbox.linux.syscalls import Abi
from suites.seccomp import escaping, learning
from suites.seccomp.patterns import PATTERNS


def test_patterns_have_runs_to_leave_out() -> None:
    assert PATTERNS
    assert all(len(pattern.runs) >= 3 for pattern in PATTERNS.values())
    assert all(pattern.needs for pattern in PATTERNS.values())


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a run that is cut off here is no leftover to the tests beside it."""
    monkeypatch.setenv("HYPERBOX_STATE", os.fspath(tmp_path / "state"))


def program(module: str, *words: str) -> Any:
    """Return what a program of the suite prints as its result."""
    command = [sys.executable, "-m", f"suites.seccomp.{module}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.root
def test_a_pattern_is_learned_and_enforced(tmp_path: Path) -> None:
    runtime = find_runtime(tmp_path).name
    words = ("--pattern", "shell", "--learn-under", runtime, "--enforce-under", runtime)
    result = program("learning", *words)
    metrics = result["metrics"]
    assert metrics["names_left"] < 50
    assert metrics["instructions_left"] < 50
    for zero in ("violations", "enforced_failures", "different_profiles", "lost"):
        assert metrics[zero] == 0, result["notes"]
    assert metrics["classes"] > 1000


@pytest.mark.root
def test_a_profile_that_lacks_a_call_fails_the_run(tmp_path: Path) -> None:
    """The gate can fail: what a run needs and was not recorded is denied."""
    runtime = find_runtime(tmp_path).name
    script = PATTERNS["shell"].runs["files"]
    poor = generate([Recording({Abi.X86_64: frozenset({"read"})})], default_profile())
    with learning.container_root() as root:
        whole = learning.ran(learning.container(root, script, default_profile()), runtime)
        denied = learning.ran(learning.container(root, script, poor.profile), runtime)
    assert whole.ended == "exit 0"
    assert denied != whole


def test_a_probe_that_gets_further_is_found() -> None:
    default = {"mount": "EPERM", "clone3": "ENOSYS", "i386 bpf": "SIGSYS", "ptrace": "ESRCH"}
    learned = {"mount": "EFAULT", "clone3": "ENOSYS", "i386 bpf": "success", "ptrace": "EPERM"}
    assert escaping.newly_allowed(default, learned) == {"mount", "i386 bpf"}
    assert escaping.stopped(learned) == {"clone3", "ptrace"}


@pytest.mark.root
def test_the_default_stops_probes_and_a_learned_profile_no_fewer() -> None:
    result = program("escaping")
    assert result["metrics"]["newly_allowed"] == 0, result["notes"]
    assert result["metrics"]["lacking"] == 0, result["notes"]
    outcomes = result["notes"]["outcomes"]
    assert outcomes["default"]["i386 getpid"] == "success"
    assert outcomes["learned"]["i386 getpid"] == "SIGSYS"  # no run entered by it
    assert outcomes["learned"]["no such call"] == "ENOSYS"


@pytest.mark.root
def test_the_command_line_learns_and_enforces() -> None:
    result = program("cli_learning")
    assert result["metrics"]["deviations"] == 0, result["notes"]
    assert result["metrics"]["expectations"] > 20


@pytest.mark.root
def test_a_program_that_enters_as_32_bit_keeps_that_entry(tmp_path: Path) -> None:
    runtime = find_runtime(tmp_path).name
    words = ("--pattern", "i386", "--learn-under", runtime, "--enforce-under", runtime)
    metrics = program("learning", *words)["metrics"]
    assert (metrics["enforced_failures"], metrics["violations"]) == (0, 0)
