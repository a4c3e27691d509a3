"""Profiles compiled to filters by libseccomp, as container runtimes do.

Follows runc's libcontainer/seccomp/seccomp_linux.go and crun's libcrun/seccomp.c: a rule whose
action equals the default is skipped, a name that this libseccomp does not know is left out, and
conditions on the same argument are rules of their own, so that one of them suffices.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hyperbox.errors import ConfigError, MissingDependency
from hyperbox.isolation.classic_bpf import Instruction, decoded
from hyperbox.isolation.profile import (
    Argument,
    FilterAction,
    FilterRule,
    Profile,
    ProfileComparison,
)

__all__ = ["CompiledFilter", "compile_profile", "load_profile"]

_EPERM = 1
_KILL_PROCESS = 0x80000000  # SCMP_ACT_KILL_PROCESS; pyseccomp has no name for it
_NOTIFY = 0x7FC00000
_BINARY_TREE = 2  # SCMP_FLTATR_CTL_OPTIMIZE, libseccomp 2.5
_ERROR = -1  # __NR_SCMP_ERROR: the name is not known


@dataclass(frozen=True)
class CompiledFilter:
    """A filter and the names that this libseccomp does not know: they get the default action."""

    instructions: tuple[Instruction, ...]
    unknown: tuple[str, ...]


def compile_profile(profile: Profile, *, tree: bool = False) -> CompiledFilter:
    """Return the filter that libseccomp makes of a profile on this machine.

    Parameters
    ----------
    tree
        Sort the calls of an architecture in a binary tree instead of one behind the other.

    Raises
    ------
    MissingDependency
        If libseccomp or its Python binding is missing.
    ConfigError
        If libseccomp refuses the profile.
    """
    made, unknown = _made(profile, tree=tree)
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return CompiledFilter(decoded(file.read()), unknown)


def load_profile(profile: Profile) -> tuple[str, ...]:
    """Put this process and its children under a profile for good; return the unknown names.

    Sets no_new_privs, which an unprivileged process needs (prctl(2)).

    Raises
    ------
    MissingDependency
        If libseccomp or its Python binding is missing.
    ConfigError
        If libseccomp or the kernel refuses the profile.
    """
    made, unknown = _made(profile, tree=False)
    try:
        made.load()
    except OSError as error:
        raise ConfigError(f"the kernel refuses the filter: {error.strerror}") from None
    return unknown


def _made(profile: Profile, *, tree: bool) -> tuple[Any, tuple[str, ...]]:
    library = _library()
    default = _action(profile.default_action, profile.default_errno)
    made = library.SyscallFilter(default)
    if tree:
        made.set_attr(library.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    for architecture in _architectures(library, profile):
        made.add_arch(architecture)
    unknown: set[str] = set()
    for rule in profile.rules:
        action = _action(rule.action, rule.errno)
        if action == default:
            continue
        for name in rule.names:
            number = library.resolve_syscall(library.Arch.NATIVE, name)
            if number == _ERROR:
                unknown.add(name)
            else:
                _add(library, made, action, number, rule, name)
    return made, tuple(sorted(unknown))


def _architectures(library: Any, profile: Profile) -> Iterator[int]:
    for name in profile.architectures:
        architecture: int | None = getattr(library.Arch, name.removeprefix("SCMP_ARCH_"), None)
        if architecture is None:
            raise ConfigError(f"libseccomp knows no architecture {name}")
        if architecture != library.system_arch():
            yield architecture


def _add(library: Any, made: Any, action: int, number: int, rule: FilterRule, name: str) -> None:
    for arguments in _alternatives(rule):
        try:
            made.add_rule(action, number, *(_condition(library, one) for one in arguments))
        except OSError as error:
            raise ConfigError(f"libseccomp refuses the rule for {name}: {error.strerror}") from None


def _library() -> Any:
    try:
        import pyseccomp  # noqa: PLC0415 # loads libseccomp, or fails
    except ImportError:
        raise MissingDependency(
            "the Python package pyseccomp is missing", hint="pip install 'hyperbox[containers]'"
        ) from None
    except (OSError, RuntimeError) as error:
        raise MissingDependency(
            f"libseccomp cannot be loaded: {error}", hint="apt-get install libseccomp2"
        ) from None
    return pyseccomp


def _action(action: FilterAction, errno: int | None) -> int:
    """Return libseccomp's number (<seccomp.h>, "SCMP_ACT_*"); EPERM is the runtimes' default."""
    errno = _EPERM if errno is None else errno
    return {
        FilterAction.KILL: 0x00000000,
        FilterAction.KILL_THREAD: 0x00000000,
        FilterAction.KILL_PROCESS: _KILL_PROCESS,
        FilterAction.TRAP: 0x00030000,
        FilterAction.ERRNO: 0x00050000 | errno,
        FilterAction.NOTIFY: _NOTIFY,
        FilterAction.TRACE: 0x7FF00000 | errno,
        FilterAction.LOG: 0x7FFC0000,
        FilterAction.ALLOW: 0x7FFF0000,
    }[action]


def _alternatives(rule: FilterRule) -> Iterator[tuple[Argument, ...]]:
    indices = [argument.index for argument in rule.arguments]
    if len(set(indices)) == len(indices):
        yield rule.arguments
    else:
        for argument in rule.arguments:
            yield (argument,)


def _condition(library: Any, argument: Argument) -> object:
    comparison = {
        ProfileComparison.NE: library.NE,
        ProfileComparison.LT: library.LT,
        ProfileComparison.LE: library.LE,
        ProfileComparison.EQ: library.EQ,
        ProfileComparison.GE: library.GE,
        ProfileComparison.GT: library.GT,
        ProfileComparison.MASKED_EQ: library.MASKED_EQ,
    }[argument.comparison]
    return library.Arg(argument.index, comparison, argument.value, argument.value_two)
