"""Generated profiles: contained, sufficient, the same bytes, and honest about what they lack."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperbox.errors import ConfigError
from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.families import FLOOR, TIGHT_FAMILIES, with_families
from hyperbox.isolation.profile import FilterRule
from hyperbox.isolation.recording import Recording, parse_recording
from hyperbox.isolation.seccomp_gen import (
    Reason,
    completeness,
    false_negatives,
    generate,
    validate,
)
from hyperbox.linux.oci_runtime import find_runtime
from hyperbox.linux.syscalls import Abi, name_of, numbers
from suites.seccomp.learning import container, container_root, ran

NAMES = st.sampled_from(sorted(numbers(Abi.X86_64)))
RECORDINGS = st.builds(
    Recording,
    calls=st.dictionaries(st.sampled_from(list(Abi)), st.frozensets(NAMES, max_size=20)),
    programs=st.frozensets(st.text(max_size=10), max_size=3),
    denied=st.frozensets(NAMES, max_size=2),
    lost=st.integers(0, 9),
    ended=st.sampled_from(["exit 0", "signal 9", ""]),
)


def native(*names: str, **fields: object) -> Recording:
    whole = {"ended": "exit 0", **fields}
    return Recording({Abi.X86_64: frozenset(names)}, **whole)  # type: ignore[arg-type]


@settings(max_examples=8, deadline=None)
@given(st.lists(RECORDINGS, min_size=1, max_size=3))
def test_it_is_contained_whatever_was_recorded(recordings: list[Recording]) -> None:
    default = default_profile()
    generated = generate(recordings, default)
    used = frozenset().union(*(one.names for one in recordings))
    assert validate(generated.profile, default).holds
    assert used & default.allowed() <= generated.profile.allowed() <= default.allowed()
    assert generated.outside_default == used - default.allowed()


@given(st.lists(RECORDINGS, min_size=2, max_size=4))
def test_bytes_do_not_depend_on_the_order(recordings: list[Recording]) -> None:
    default = default_profile()
    made = {
        generate(order, default).profile.encoded()
        for order in itertools.permutations(recordings[:3])
    }
    assert len(made) == 1


def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "import sys; from hyperbox.isolation.seccomp_gen import generate\n"
        "from hyperbox.isolation.default_profile import default_profile\n"
        "from hyperbox.isolation.recording import Recording\n"
        "from hyperbox.linux.syscalls import Abi\n"
        "names = frozenset(['read', 'socket', 'clone', 'personality', 'poll'])\n"
        "made = generate([Recording({Abi.X86_64: names})], default_profile()).profile\n"
        "sys.stdout.buffer.write(made.encoded())"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(made) == 1


def test_conditions_and_special_errors_are_copied() -> None:
    profile = generate([native("clone", "socket")], default_profile()).profile
    by_name: dict[str, list[FilterRule]] = {}
    for rule in profile.rules:
        for name in rule.names:
            by_name.setdefault(name, []).append(rule)
    assert all(rule.arguments for rule in by_name["clone"])
    assert all(rule.arguments for rule in by_name["socket"])
    assert [rule.errno for rule in by_name["clone3"]] == [38]


def test_reasons_say_why_each_name_is_there() -> None:
    reasons = generate([native("epoll_wait")], default_profile(), static=["mlock"]).reasons
    assert reasons["epoll_wait"] is Reason.RUN
    assert reasons["epoll_pwait"] is Reason.FAMILY
    assert reasons["mlock"] is Reason.STATIC
    assert reasons["exit_group"] is Reason.FLOOR


def test_a_32_bit_caller_keeps_its_architecture() -> None:
    compat = Recording({Abi.I386: frozenset({"read"})})
    assert "SCMP_ARCH_X86" in generate([compat], default_profile()).profile.architectures
    assert generate([native("read")], default_profile()).profile.architectures == (
        "SCMP_ARCH_X86_64",
    )


def test_a_profile_is_much_smaller_than_its_default() -> None:
    profile = generate([native("socket", "bind", "epoll_wait")], default_profile()).profile
    found = validate(profile, default_profile())
    assert found.size.names < found.default_size.names / 2
    assert found.size.instructions < found.default_size.instructions / 4
    assert found.size.json_bytes < found.default_size.json_bytes / 2


def test_held_out_runs_count_what_is_missing() -> None:
    runs = [native("read", "mlock"), native("read"), native("read", "mincore")]
    found = false_negatives(runs, default_profile())
    assert found.missing == (("mlock",), (), ("mincore",))
    assert found.needed == 5
    assert found.rate == pytest.approx(2 / 5)
    with pytest.raises(ValueError, match="two recordings"):
        false_negatives(runs[:1], default_profile())


def test_learning_that_adds_nothing_is_seen() -> None:
    runs = [native("read", "mlock"), native("read", "mlock"), native("read", "mlock")]
    found = completeness(runs)
    assert found.new_calls == (2, 0, 0)
    assert found.expected_next == 0
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("recording", "warning"),
    [
        (native("mlock", lost=3), "3 observations were lost"),
        (native("mlock", ended="signal 9"), "ended by signal 9"),
        (native("mlock", ended=""), "an unknown cause"),
        (native("read"), "as if idle"),
        (native("mlock", programs=frozenset({"/bin/sh"})), "no program but a shell"),
        (native("io_uring_setup"), "io_uring"),
    ],
)
def test_what_makes_a_profile_doubtful_is_said(recording: Recording, warning: str) -> None:
    found = completeness([recording, native("mlock", "mincore")])
    assert [text for text in found.warnings if warning in text and "run 1" in text]


def test_families_and_floor_name_real_calls() -> None:
    exist = set(numbers(Abi.X86_64)) | set(numbers(Abi.I386))
    assert set().union(*TIGHT_FAMILIES) <= exist
    assert exist >= FLOOR
    assert with_families(["stat"]) >= {"stat", "newfstatat", "statx"}
    assert sum(map(len, TIGHT_FAMILIES)) == len(set().union(*TIGHT_FAMILIES))  # no name in two


def test_tables_of_calls_are_the_kernels() -> None:
    assert (numbers(Abi.X86_64)["read"], numbers(Abi.I386)["read"]) == (0, 3)
    assert name_of(451) == "cachestat"  # libseccomp 2.5.4 does not know it
    assert name_of(99_999) == "syscall_99999"


@given(RECORDINGS)
def test_recordings_are_read_back(recording: Recording) -> None:
    assert parse_recording(json.loads(recording.encoded()), "test") == recording


@example({"format": 1, "calls": {"arm": []}})
@example({"format": 1, "calls": {}, "lost": True})
@given(
    st.dictionaries(
        st.sampled_from(["format", "calls", "lost", "environment", "denied", "programs"]),
        st.none() | st.integers(-1, 1) | st.lists(st.integers()) | st.dictionaries(NAMES, NAMES),
    )
)
def test_a_damaged_recording_is_refused(document: object) -> None:
    with pytest.raises(ConfigError, match="file"):
        parse_recording(document, "file")


@pytest.mark.root
def test_the_floor_starts_a_program(tmp_path: Path) -> None:
    """Runc looks for the program by faccessat2, crun by access."""
    poor = generate([native("read")], default_profile()).profile
    with container_root() as rootfs:
        described = replace(container(rootfs, "", poor), command=("/bin/true",))
        assert ran(described, find_runtime(tmp_path).name).ended == "exit 0"


def test_a_futex_of_the_runtime_changes_nothing() -> None:
    """Threads of runc call it in some starts only: 112 names on 5.10, 116 on 6.12 for one shell."""
    made = [generate([native("read", *more)], default_profile()) for more in ((), ("futex",))]
    assert made[0].profile == made[1].profile
