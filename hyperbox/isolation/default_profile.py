"""The default profiles of container engines, vendored, and what they mean on one machine.

A default is written for all architectures, kernels and capabilities (moby's profiles/seccomp).
An engine resolves it before an OCI runtime sees it; `resolve` follows ``setupSeccomp`` of
moby/profiles, seccomp/seccomp_linux.go. The files under ``defaults/`` are moby's, unchanged,
Apache-2.0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from hyperbox.errors import ConfigError
from hyperbox.isolation.profile import FilterRule, Profile, parse_profile, parse_rule

__all__ = [
    "CAPABILITIES",
    "DEFAULTS",
    "NEWEST",
    "DefaultProfile",
    "TargetMachine",
    "default_profile",
    "resolve",
]

CAPABILITIES = frozenset(
    {
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    }
)
"""What Docker gives a container (moby, oci/caps/defaults.go)."""


@dataclass(frozen=True)
class DefaultProfile:
    """A vendored default: its name here, where it comes from, and what it is known by."""

    name: str
    source: str
    engines: str


NEWEST = "moby-2026-05"
DEFAULTS: Mapping[str, DefaultProfile] = {
    default.name: default
    for default in (
        DefaultProfile(
            NEWEST,
            "moby/profiles, seccomp/default.json at 3c28324314729dbade8287e868eef6338c42807a",
            "Docker Engine from 2026-05: denies AF_ALG sockets; i386 socketcall is still allowed",
        ),
        DefaultProfile(
            "docker-20.10.24",
            "moby/moby, profiles/seccomp/default.json at v20.10.24",
            "docker.io of Debian 12",
        ),
    )
}


@dataclass(frozen=True)
class TargetMachine:
    """What a default depends on.

    Parameters
    ----------
    architecture
        As Docker names it, ``amd64``.
    capabilities
        The container's bounding set.
    kernel
        Major and minor version.
    """

    architecture: str = "amd64"
    capabilities: frozenset[str] = CAPABILITIES
    kernel: tuple[int, int] = (5, 10)


_NATIVE = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}


@cache
def _document(name: str) -> tuple[Mapping[str, Any], str]:
    if name not in DEFAULTS:
        raise ConfigError(
            f"no default profile is called {name!r}", hint=f"there are: {', '.join(DEFAULTS)}"
        )
    data = resources.files("hyperbox.isolation").joinpath("defaults", f"{name}.json").read_bytes()
    return json.loads(data), hashlib.sha256(data).hexdigest()


def default_profile(name: str = NEWEST, machine: TargetMachine | None = None) -> Profile:
    """Return a vendored default as it applies on a machine, in canonical form.

    Raises
    ------
    ConfigError
        If there is no default of that name.
    """
    return resolve(_document(name)[0], machine or TargetMachine(), f"default profile {name}")


def resolve(document: Mapping[str, Any], machine: TargetMachine, source: str) -> Profile:
    """Return what a profile in Docker's format means on a machine, in canonical form.

    A document in the OCI form (no ``archMap``, no conditions) comes back as it is.

    Raises
    ------
    ConfigError
        If it is not a profile.
    """
    entries = document.get("syscalls")
    if not isinstance(entries, list):
        raise ConfigError(f"{source}: syscalls: a list is expected")
    rules: list[FilterRule] = []
    for place, entry in enumerate(entries):
        where = f"{source}: syscalls[{place}]"
        rule = parse_rule(entry, where)
        if _applies(entry, machine, where):
            rules.append(rule)
    plain = {key: document[key] for key in document if key not in ("archMap", "syscalls")}
    outer = parse_profile(plain, source)
    architectures = outer.architectures or _architectures(
        document.get("archMap"), machine, f"{source}: archMap"
    )
    profile = Profile(outer.default_action, tuple(rules), architectures, outer.default_errno)
    return profile.canonical()


def _architectures(entries: object, machine: TargetMachine, source: str) -> tuple[str, ...]:
    native = _NATIVE.get(machine.architecture, "")
    for entry in entries if isinstance(entries, list) else []:
        table = _conditions(entry, source)
        if table.get("architecture") == native:
            return (native, *map(str, _listed(table, "subArchitectures", source)))
    return ()


def _applies(entry: Mapping[str, Any], machine: TargetMachine, source: str) -> bool:
    includes = _conditions(entry.get("includes"), f"{source}.includes")
    excludes = _conditions(entry.get("excludes"), f"{source}.excludes")
    excluded = (
        machine.architecture in _listed(excludes, "arches", source)
        or any(one in machine.capabilities for one in _listed(excludes, "caps", source))
        or ("minKernel" in excludes and machine.kernel >= _version(excludes["minKernel"], source))
    )
    arches = _listed(includes, "arches", source)
    return not excluded and (
        (not arches or machine.architecture in arches)
        and all(one in machine.capabilities for one in _listed(includes, "caps", source))
        and (
            "minKernel" not in includes or machine.kernel >= _version(includes["minKernel"], source)
        )
    )


def _conditions(value: object, source: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{source}: an object is expected")
    return value


def _listed(table: Mapping[str, Any], key: str, source: str) -> list[object]:
    value = table.get(key)
    if value is not None and not isinstance(value, list):
        raise ConfigError(f"{source}: {key}: a list is expected")
    return value or []


def _version(text: object, source: str) -> tuple[int, int]:
    parts: Sequence[str] = str(text).split(".")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"{source}: minKernel: {text!r} is not MAJOR.MINOR")
    return int(parts[0]), int(parts[1])
