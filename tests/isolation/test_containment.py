"""The proof finds every widening, has no false alarm, and agrees with brute force."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperbox.isolation.classic_bpf import Call, Instruction, executes, run
from hyperbox.isolation.containment import _smallest, _solve, contained
from hyperbox.isolation.default_profile import DEFAULTS, default_profile
from hyperbox.isolation.libseccomp_filter import compile_profile
from hyperbox.isolation.profile import (
    Argument,
    FilterAction,
    FilterRule,
    Profile,
    ProfileComparison,
)
from hyperbox.linux.syscalls import X32_BIT, Abi, numbers

CLONE_NEWNS = 0x00020000
WIDENINGS = {
    "clone without its mask": FilterRule(("clone",), FilterAction.ALLOW),
    "clone with a smaller mask": FilterRule(
        ("clone",), FilterAction.ALLOW, (Argument(0, ProfileComparison.MASKED_EQ, 0x7C000000),)
    ),
    "unshare": FilterRule(("unshare",), FilterAction.ALLOW),
    "one personality more": FilterRule(
        ("personality",), FilterAction.ALLOW, (Argument(0, ProfileComparison.EQ, 0x40000),)
    ),
    "personalities beyond 32 bits": FilterRule(
        ("personality",), FilterAction.ALLOW, (Argument(0, ProfileComparison.GT, 0xFFFFFFFF),)
    ),
    "AF_ALG": FilterRule(("socket",), FilterAction.ALLOW, (Argument(0, ProfileComparison.EQ, 38),)),
    "logged, but executed": FilterRule(("bpf",), FilterAction.LOG),
}


def program(profile: Profile, *, tree: bool = False) -> tuple[Instruction, ...]:
    return compile_profile(profile, tree=tree).instructions


@pytest.mark.parametrize("rule", WIDENINGS.values(), ids=WIDENINGS)
def test_every_widening_is_found(rule: FilterRule) -> None:
    default = default_profile()
    wider = replace(default, rules=(*default.rules, rule))
    found = contained(program(wider), program(default, tree=True))
    assert not found.holds
    (name,) = rule.names
    expected = {numbers(Abi.X86_64)[name], numbers(Abi.I386)[name]}
    assert {violation.call.number & ~X32_BIT for violation in found.violations} <= expected
    for violation in found.violations:
        assert executes(run(program(wider), violation.call))
        assert not executes(run(program(default), violation.call))


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_filter_is_contained_in_itself_however_it_is_compiled(name: str) -> None:
    default = default_profile(name)
    found = contained(program(default, tree=True), program(default))
    assert found.holds
    assert found.classes > len(default.allowed())


def test_another_architecture_is_a_widening() -> None:
    default = default_profile()
    narrow = replace(default, architectures=("SCMP_ARCH_X86_64",))
    assert contained(program(narrow), program(default)).holds
    assert not contained(program(default), program(narrow)).holds


def test_the_newer_default_denies_what_the_older_one_allows() -> None:
    newer, older = (program(default_profile(name)) for name in DEFAULTS)
    found = contained(older, newer)
    sockets = {v.call.arguments[0] for v in found.violations if v.call.number == 41}
    assert 38 in sockets  # AF_ALG, denied since 2026


COMPARISONS = st.tuples(
    st.sampled_from(list(ProfileComparison)), st.integers(0, 255), st.integers(0, 255)
)


def profile_of(conditions: list[tuple[ProfileComparison, int, int]]) -> Profile:
    rules = tuple(
        FilterRule(("getpid",), FilterAction.ALLOW, (Argument(0, comparison, value, second),))
        for comparison, value, second in conditions
    )
    return Profile(FilterAction.ERRNO, rules)


@settings(max_examples=60, deadline=None)
@example([(ProfileComparison.MASKED_EQ, 6, 2)], [(ProfileComparison.MASKED_EQ, 2, 2)])
@example(
    [(ProfileComparison.NE, 3, 0)], [(ProfileComparison.LT, 3, 0), (ProfileComparison.GT, 3, 0)]
)
@given(st.lists(COMPARISONS, min_size=1, max_size=3), st.lists(COMPARISONS, max_size=3))
def test_it_agrees_with_brute_force(
    first: list[tuple[ProfileComparison, int, int]],
    second: list[tuple[ProfileComparison, int, int]],
) -> None:
    inner, outer = program(profile_of(first)), program(profile_of(second))
    # Conditions look at the lowest byte only, or at order: 0 to 511 and one large value decide.
    values = [*range(512), 2**32, 2**64 - 1]
    calls = [Call(numbers(Abi.X86_64)["getpid"], arguments=(value,)) for value in values]
    wider = any(executes(run(inner, c)) and not executes(run(outer, c)) for c in calls)
    assert contained(inner, outer).holds is not wider


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
def test_the_smallest_value_fits_and_none_is_smaller(a: int, b: int, fixed: int, bits: int) -> None:
    low, high = min(a, b), max(a, b)
    found = _smallest(low, high, fixed, bits & fixed)
    if found is not None:
        assert low <= found <= high
        assert not (found ^ bits) & fixed
    for value in (low, high, low + (high - low) // 2):
        if not (value ^ bits) & fixed:
            assert found is not None
            assert found <= value


MASKS = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=3, unique=True)


@given(st.integers(0, 15), st.integers(0, 15), MASKS, st.integers(0, 7))
def test_solving_finds_a_value_if_there_is_one(
    a: int, b: int, masked: list[tuple[int, int]], truths: int
) -> None:
    low, high = min(a, b), max(a, b)
    truth = [bool(truths >> place & 1) for place in range(len(masked))]
    fitting = [
        value
        for value in range(low, high + 1)
        if all((value & m == k) is equal for (m, k), equal in zip(masked, truth, strict=True))
    ]
    found = _solve(low, high, masked, truth)
    assert (found in fitting) if fitting else found is None


def test_what_is_not_analysed_is_refused() -> None:
    shifting = [Instruction(0x20, 0, 0, 0), Instruction(0x64, 0, 0, 1), Instruction(0x06, 0, 0, 0)]
    with pytest.raises(ValueError, match="not analysed"):
        contained(shifting, shifting)
