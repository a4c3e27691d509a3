"""Seccomp profiles from recordings: generate them, prove them against the default, apply them.

A generated profile allows what runs used, with the families of `hyperbox.isolation.families` and a
floor that every container needs, and never more than the default allows: the union is intersected
with the default, whose conditions on arguments and special errors are copied. Pure but for
`apply`; the bytes depend on nothing but the recordings and the default.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from hyperbox.isolation.containment import Containment, contained
from hyperbox.isolation.families import FLOOR, with_families
from hyperbox.isolation.libseccomp_filter import compile_profile, load_profile
from hyperbox.isolation.profile import FilterAction, Profile
from hyperbox.isolation.recording import Recording
from hyperbox.linux.syscalls import Abi, numbers

__all__ = [
    "Completeness",
    "FalseNegatives",
    "Generated",
    "ProfileSize",
    "Reason",
    "Validation",
    "apply",
    "completeness",
    "false_negatives",
    "generate",
    "measure",
    "validate",
]

_NATIVE = "SCMP_ARCH_X86_64"
_COMPAT = "SCMP_ARCH_X86"
_SHELLS = ("sh", "bash", "dash", "busybox", "ash")


class Reason(StrEnum):
    """Why a profile allows a call."""

    RUN = "used by a run"
    FLOOR = "needed by every container"
    FAMILY = "does what a used call does"
    STATIC = "reachable from an executed program"


@dataclass(frozen=True)
class Generated:
    """A profile, why each name is in it, and what was wanted but is not in the default."""

    profile: Profile
    reasons: Mapping[str, Reason]
    outside_default: frozenset[str]


def generate(
    recordings: Sequence[Recording], default: Profile, static: Iterable[str] = ()
) -> Generated:
    """Return the profile that recordings call for, contained in a default.

    The order of recordings does not matter.

    Parameters
    ----------
    recordings
        At least one.
    default
        A resolved default; see `hyperbox.isolation.default_profile`.
    static
        Calls that are added although no run used them; see `Reason.STATIC`.
    """
    used = frozenset().union(*(recording.names for recording in recordings))
    static = frozenset(static)
    wanted = with_families(used | static) | FLOOR
    reasons = {name: _reason(name, used, static) for name in sorted(wanted & default.allowed())}
    rules = []
    for rule in default.rules:
        if rule.action is FilterAction.ALLOW:
            names = tuple(name for name in rule.names if name in reasons)
        else:
            names = (
                rule.names
            )  # an error of its own: clone3 fails with ENOSYS, so that libc falls back
        if names:
            rules.append(replace(rule, names=names))
    profile = Profile(
        default.default_action,
        tuple(rules),
        _architectures(recordings, default),
        default.default_errno,
    )
    return Generated(profile.canonical(), reasons, used - default.allowed())


def _reason(name: str, used: frozenset[str], static: frozenset[str]) -> Reason:
    if name in used:
        return Reason.RUN
    if name in static:
        return Reason.STATIC
    return Reason.FLOOR if name in FLOOR else Reason.FAMILY


def _architectures(recordings: Sequence[Recording], default: Profile) -> tuple[str, ...]:
    """Return the native architecture, and i386 if some run entered by it.

    A filter kills callers of an architecture that it does not have (libseccomp's
    SCMP_FLTATR_ACT_BADARCH), so one that was seen must stay.
    """
    compat = any(recording.calls.get(Abi.I386) for recording in recordings)
    wanted = (_NATIVE, _COMPAT) if compat else (_NATIVE,)
    return tuple(name for name in wanted if name in default.architectures)


@dataclass(frozen=True)
class ProfileSize:
    """A profile by three measures.

    Parameters
    ----------
    names
        Names allowed that exist on x86-64 (Linux 7.3); names of other architectures inflate a
        default and do not count.
    json_bytes
        Canonical JSON.
    instructions
        Of the filter that libseccomp makes of it on this machine.
    """

    names: int
    json_bytes: int
    instructions: int


def measure(profile: Profile) -> ProfileSize:
    """Return how large a profile is.

    Raises
    ------
    HyperboxError
        If libseccomp is missing or refuses it.
    """
    exist = numbers(Abi.X86_64)
    return ProfileSize(
        names=sum(name in exist for name in profile.allowed()),
        json_bytes=len(profile.encoded()),
        instructions=len(compile_profile(profile).instructions),
    )


@dataclass(frozen=True)
class Validation:
    """What was found of a profile beside its default.

    `unknown` are names that this machine's libseccomp does not know: it compiles the profile
    without them, and a container still starts.
    """

    containment: Containment
    size: ProfileSize
    default_size: ProfileSize
    unknown: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Return whether the profile lets nothing through that its default stops."""
        return self.containment.holds


def validate(profile: Profile, default: Profile) -> Validation:
    """Return whether a profile is contained in a default, call by call, and both their sizes.

    Raises
    ------
    HyperboxError
        If libseccomp is missing or refuses one of them.
    """
    compiled = compile_profile(profile)
    proof = contained(compiled.instructions, compile_profile(default, tree=True).instructions)
    return Validation(proof, measure(profile), measure(default), compiled.unknown)


def apply(profile: Profile) -> tuple[str, ...]:
    """Put this process and its children under a profile for good; return names not known here.

    Raises
    ------
    HyperboxError
        If libseccomp is missing, or the profile is refused.
    """
    return load_profile(profile)


@dataclass(frozen=True)
class FalseNegatives:
    """Calls that held-out runs need and a profile lacks, of those that the default allows."""

    missing: tuple[tuple[str, ...], ...]
    """By held-out run, in the order of the recordings."""
    needed: int

    @property
    def rate(self) -> float:
        """Return missing calls per needed call."""
        return sum(map(len, self.missing)) / self.needed if self.needed else 0.0


def false_negatives(recordings: Sequence[Recording], default: Profile) -> FalseNegatives:
    """Return what leaving one run out costs: each run against the profile from all others.

    Takes at least two recordings; ValueError else.
    """
    if len(recordings) < 2:
        raise ValueError("leaving one out takes at least two recordings")
    missing = []
    needed = 0
    for place, held_out in enumerate(recordings):
        others = [*recordings[:place], *recordings[place + 1 :]]
        wanted = held_out.names & default.allowed()
        missing.append(tuple(sorted(wanted - generate(others, default).profile.allowed())))
        needed += len(wanted)
    return FalseNegatives(tuple(missing), needed)


@dataclass(frozen=True)
class Completeness:
    """How far learning has come.

    Parameters
    ----------
    new_calls
        By run, in the order given: how many calls it added to those of the runs before.
    expected_next
        Good and Turing's estimate of the calls that one more run would add: those seen in exactly
        one run, per run (Good 1953; for runs as sampling units, Chao and Colwell 2013).
    warnings
        What makes the profile doubtful, each one sentence.
    """

    new_calls: tuple[int, ...]
    expected_next: float
    warnings: tuple[str, ...]


def completeness(recordings: Sequence[Recording]) -> Completeness:
    """Return how complete a set of recordings looks, and what makes it doubtful."""
    seen: set[str] = set()
    new_calls = []
    for recording in recordings:
        new_calls.append(len(recording.names - seen))
        seen |= recording.names
    runs = Counter(name for recording in recordings for name in recording.names)
    once = sum(count == 1 for count in runs.values())
    expected = once / len(recordings) if recordings else 0.0
    return Completeness(tuple(new_calls), expected, tuple(_warnings(recordings)))


def _warnings(recordings: Sequence[Recording]) -> Iterable[str]:
    for place, recording in enumerate(recordings, start=1):
        if recording.lost:
            yield f"run {place}: {recording.lost} observations were lost"
        if not recording.ended.startswith("exit "):
            ended = recording.ended or "an unknown cause"
            yield f"run {place}: ended by {ended}, so the program's own end was not seen"
        programs = {path.rpartition("/")[2] for path in recording.programs}
        if programs and programs <= set(_SHELLS):
            yield f"run {place}: executed no program but a shell"
        if not recording.names - FLOOR:
            yield f"run {place}: called nothing but what every container needs, as if idle"
        if any(name.startswith("io_uring") for name in recording.names):
            yield f"run {place}: uses io_uring, whose operations no seccomp filter sees"
    if len(recordings) == 1:
        yield "one run only: other flags, error paths and the shutdown may need more"
