"""Profiles: parsed or refused with their place, canonical, and resolved as Docker does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperbox.errors import ConfigError
from hyperbox.isolation.default_profile import (
    CAPABILITIES,
    DEFAULTS,
    TargetMachine,
    default_profile,
    resolve,
)
from hyperbox.isolation.profile import (
    Argument,
    FilterAction,
    FilterRule,
    Profile,
    ProfileComparison,
    parse_profile,
)

ARGUMENTS = st.builds(
    Argument,
    st.integers(0, 5),
    st.sampled_from(list(ProfileComparison)),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)
RULES = st.builds(
    FilterRule,
    st.lists(st.text("abcdef_", min_size=1, max_size=8), min_size=1, max_size=4).map(tuple),
    st.sampled_from(list(FilterAction)),
    st.lists(ARGUMENTS, max_size=2).map(tuple),
    st.none() | st.integers(0, 4095),
)
PROFILES = st.builds(
    Profile,
    st.sampled_from(list(FilterAction)),
    st.lists(RULES, max_size=6).map(tuple),
    st.lists(st.sampled_from(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]), max_size=2).map(tuple),
    st.none() | st.integers(0, 4095),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=10,
)
RULE = st.fixed_dictionaries(
    {"names": st.just(["read"]), "action": st.just("SCMP_ACT_ALLOW")},
    optional={"includes": JSON, "excludes": JSON, "args": JSON, "errnoRet": JSON},
)
DOCUMENTS = st.fixed_dictionaries(
    {"defaultAction": st.just("SCMP_ACT_ERRNO") | JSON, "syscalls": st.lists(RULE) | JSON},
    optional={"architectures": JSON, "defaultErrnoRet": JSON, "archMap": JSON},
)


@given(PROFILES)
def test_what_is_written_is_read_back(profile: Profile) -> None:
    read = parse_profile(json.loads(profile.encoded()), "test")
    assert read == profile.canonical()
    assert read.encoded() == profile.encoded()


@given(PROFILES, st.randoms())
def test_order_does_not_change_the_bytes(profile: Profile, random: Any) -> None:
    rules = list(profile.rules)
    random.shuffle(rules)
    shuffled = [replace(r, names=tuple(random.sample(r.names, len(r.names)))) for r in rules]
    assert replace(profile, rules=tuple(shuffled)).encoded() == profile.encoded()


@example({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["a"], "action": []}]})
@example({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": [""], "action": "x"}]})
@example({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": True})
@example({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}, "archMap": []})
@settings(max_examples=300)
@given(JSON | DOCUMENTS)
def test_whatever_a_document_is_it_is_read_or_refused(document: object) -> None:
    refused = []
    for reader in (parse_profile, resolved):
        try:
            reader(document, "some file")
        except ConfigError as error:
            refused.append(error.message)
    assert all(message.startswith("some file: ") for message in refused)


def resolved(document: Any, source: str) -> Profile:
    return resolve(document if isinstance(document, dict) else {}, TargetMachine(), source)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"defaultAction": "ALLOW"}, "defaultAction"),
        ({"defaultErrnoRet": 5000}, "defaultErrnoRet"),
        ({"syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]}, "syscalls[0]: no names"),
        ({"syscalls": [{"names": ["a" * 65], "action": "SCMP_ACT_ALLOW"}]}, "syscalls[0].names"),
        (
            {
                "syscalls": [
                    {
                        "names": ["a"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}],
                    }
                ]
            },
            "syscalls[0].args[0].index",
        ),
        ({"syscalls": [0] * 10_001}, "10001 rules"),
        ({"archMap": []}, "archMap"),
    ],
)
def test_the_place_of_a_mistake_is_named(change: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_profile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [], **change}, "file.json")
    assert place in caught.value.message


def test_dockers_older_form_of_a_rule_is_read() -> None:
    rule = {"name": "read", "action": "SCMP_ACT_ALLOW", "args": None}
    read = parse_profile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}, "test")
    assert read.allowed() == {"read"}


def test_defaults_are_resolved_for_the_machine() -> None:
    default = default_profile()
    assert {"arch_prctl", "ptrace", "clone", "chroot"} <= default.allowed()
    assert not {"mount", "bpf", "s390_runtime_instr", "io_uring_setup"} & default.allowed()
    assert set(default.architectures) == {"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"}
    (clone3,) = (rule for rule in default.rules if rule.names == ("clone3",))
    assert (clone3.action, clone3.errno) == (FilterAction.ERRNO, 38)


def test_capabilities_and_kernel_decide() -> None:
    privileged = default_profile(
        machine=TargetMachine(capabilities=CAPABILITIES | {"CAP_SYS_ADMIN"})
    )
    assert {"mount", "bpf"} <= privileged.allowed()
    assert "clone3" in privileged.allowed()
    assert "ptrace" not in default_profile(machine=TargetMachine(kernel=(4, 7))).allowed()


def test_an_unknown_default_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        default_profile("podman")
    assert all(name in caught.value.hint for name in DEFAULTS)
