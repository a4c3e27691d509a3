"""A seccomp profile as OCI runtimes take it: parsed, in canonical form, written.

Follows ``linux.seccomp`` of the OCI runtime specification 1.2 (config-linux.md, "Seccomp"). Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from hyperbox.errors import ConfigError

__all__ = [
    "Argument",
    "FilterAction",
    "FilterRule",
    "Profile",
    "ProfileComparison",
    "parse_profile",
]

_MOST_RULES = 10_000
_LONGEST_NAME = 64
_Name = TypeVar("_Name", bound=StrEnum)


class FilterAction(StrEnum):
    """What the kernel does with a call."""

    KILL = "SCMP_ACT_KILL"
    KILL_THREAD = "SCMP_ACT_KILL_THREAD"
    KILL_PROCESS = "SCMP_ACT_KILL_PROCESS"
    TRAP = "SCMP_ACT_TRAP"
    ERRNO = "SCMP_ACT_ERRNO"
    NOTIFY = "SCMP_ACT_NOTIFY"
    TRACE = "SCMP_ACT_TRACE"
    LOG = "SCMP_ACT_LOG"
    ALLOW = "SCMP_ACT_ALLOW"


class ProfileComparison(StrEnum):
    """How an argument is compared."""

    NE = "SCMP_CMP_NE"
    LT = "SCMP_CMP_LT"
    LE = "SCMP_CMP_LE"
    EQ = "SCMP_CMP_EQ"
    GE = "SCMP_CMP_GE"
    GT = "SCMP_CMP_GT"
    MASKED_EQ = "SCMP_CMP_MASKED_EQ"


@dataclass(frozen=True, order=True)
class Argument:
    """A condition on argument `index` (0 to 5).

    With `ProfileComparison.MASKED_EQ` it is ``argument & value == value_two``.
    """

    index: int
    comparison: ProfileComparison
    value: int
    value_two: int = 0

    def as_json(self) -> dict[str, object]:
        """Return it as the specification writes it; ``valueTwo`` only if it is not 0."""
        document: dict[str, object] = {
            "index": self.index,
            "op": str(self.comparison),
            "value": self.value,
        }
        if self.value_two:
            document["valueTwo"] = self.value_two
        return document


@dataclass(frozen=True)
class FilterRule:
    """An action for calls by name, if all conditions hold.

    `errno` is the error of `FilterAction.ERRNO`; None stands for the runtime's default, EPERM.
    """

    names: tuple[str, ...]
    action: FilterAction
    arguments: tuple[Argument, ...] = ()
    errno: int | None = None

    def as_json(self) -> dict[str, object]:
        """Return it as the specification writes it."""
        document: dict[str, object] = {"names": list(self.names), "action": str(self.action)}
        if self.arguments:
            document["args"] = [argument.as_json() for argument in self.arguments]
        if self.errno is not None:
            document["errnoRet"] = self.errno
        return document


@dataclass(frozen=True)
class Profile:
    """A seccomp profile.

    Parameters
    ----------
    architectures
        libseccomp's names (``SCMP_ARCH_X86_64``); the native one always counts.
    flags
        Of seccomp(2), for example ``SECCOMP_FILTER_FLAG_LOG``. runc knows them from 1.2 on.
    listener
        Path of the socket that takes the descriptor for `FilterAction.NOTIFY`; empty for none.
    """

    default_action: FilterAction
    rules: tuple[FilterRule, ...]
    architectures: tuple[str, ...] = ()
    default_errno: int | None = None
    flags: tuple[str, ...] = ()
    listener: str = ""

    def allowed(self) -> frozenset[str]:
        """Return the names that some rule allows, with whatever condition on arguments."""
        rules = (rule for rule in self.rules if rule.action is FilterAction.ALLOW)
        return frozenset(name for rule in rules for name in rule.names)

    def canonical(self) -> Profile:
        """Return an equal profile in the one order: equal rules merged, everything sorted."""
        names: dict[tuple[FilterAction, int, tuple[Argument, ...]], set[str]] = {}
        for rule in self.rules:
            errno = -1 if rule.errno is None else rule.errno
            key = (rule.action, errno, tuple(sorted(rule.arguments)))
            names.setdefault(key, set()).update(rule.names)
        rules = tuple(
            FilterRule(tuple(sorted(names[key])), key[0], key[2], None if key[1] < 0 else key[1])
            for key in sorted(names)
        )
        return replace(self, rules=rules, architectures=tuple(sorted(set(self.architectures))))

    def as_json(self) -> dict[str, object]:
        """Return it as the specification writes it."""
        document: dict[str, object] = {"defaultAction": str(self.default_action)}
        if self.default_errno is not None:
            document["defaultErrnoRet"] = self.default_errno
        if self.architectures:
            document["architectures"] = list(self.architectures)
        if self.flags:
            document["flags"] = list(self.flags)
        if self.listener:
            document["listenerPath"] = self.listener
        document["syscalls"] = [rule.as_json() for rule in self.rules]
        return document

    def encoded(self) -> bytes:
        """Return the canonical profile as JSON: the same bytes for the same meaning."""
        text = json.dumps(self.canonical().as_json(), sort_keys=True, separators=(",", ":"))
        return text.encode() + b"\n"


def parse_profile(document: object, source: str) -> Profile:
    """Return the profile in a parsed JSON document.

    Parameters
    ----------
    source
        What the document is, for messages: a path or "profile of container NAME".

    Raises
    ------
    ConfigError
        If it is not a profile; names the place in the document.
    """
    table = _table(document, source)
    if "archMap" in table:
        raise ConfigError(
            f"{source}: 'archMap' is Docker's, not of the OCI specification",
            hint="resolve it for a machine first: hyperbox.isolation.default_profile.resolve",
        )
    rules = _sequence(table.get("syscalls", []), f"{source}: syscalls")
    if len(rules) > _MOST_RULES:
        raise ConfigError(f"{source}: {len(rules)} rules, at most {_MOST_RULES} are read")
    return Profile(
        default_action=_named(FilterAction, table.get("defaultAction"), f"{source}: defaultAction"),
        rules=tuple(
            parse_rule(rule, f"{source}: syscalls[{place}]") for place, rule in enumerate(rules)
        ),
        architectures=_texts(table.get("architectures") or [], f"{source}: architectures"),
        default_errno=_errno(table.get("defaultErrnoRet"), f"{source}: defaultErrnoRet"),
        flags=_texts(table.get("flags") or [], f"{source}: flags"),
        listener=_path(table.get("listenerPath", ""), f"{source}: listenerPath"),
    )


def parse_rule(document: object, source: str) -> FilterRule:
    """Return one entry of ``syscalls``; takes Docker's older ``name`` for ``names`` too.

    Raises
    ------
    ConfigError
        If it is not a rule.
    """
    table = _table(document, source)
    names = table.get("names") or ([table["name"]] if "name" in table else [])
    found = _texts(names, f"{source}.names")
    if not found:
        raise ConfigError(f"{source}: no names")
    arguments = _sequence(table.get("args") or [], f"{source}.args")
    return FilterRule(
        names=found,
        action=_named(FilterAction, table.get("action"), f"{source}.action"),
        arguments=tuple(
            _argument(argument, f"{source}.args[{place}]")
            for place, argument in enumerate(arguments)
        ),
        errno=_errno(table.get("errnoRet"), f"{source}.errnoRet"),
    )


def _argument(document: object, source: str) -> Argument:
    table = _table(document, source)
    return Argument(
        index=_integer(table.get("index"), f"{source}.index", most=5),
        comparison=_named(ProfileComparison, table.get("op"), f"{source}.op"),
        value=_integer(table.get("value"), f"{source}.value", most=2**64 - 1),
        value_two=_integer(table.get("valueTwo", 0), f"{source}.valueTwo", most=2**64 - 1),
    )


def _errno(value: object, source: str) -> int | None:
    # 4095 is MAX_ERRNO of <linux/err.h>: the kernel caps what a filter returns there.
    return None if value is None else _integer(value, source, most=4095)


def _integer(value: object, source: str, *, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ConfigError(f"{source}: {_short(value)} is not an integer from 0 to {most}")
    return value


def _named(kind: Callable[[str], _Name], value: object, source: str) -> _Name:
    try:
        return kind(value if isinstance(value, str) else "")
    except ValueError:
        raise ConfigError(f"{source}: {_short(value)} is not known") from None


def _table(value: object, source: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{source}: an object is expected, not {_short(value)}")
    return value


def _sequence(value: object, source: str) -> Sequence[object]:
    if not isinstance(value, list):
        raise ConfigError(f"{source}: a list is expected, not {_short(value)}")
    return value


def _texts(value: object, source: str) -> tuple[str, ...]:
    items: Iterable[object] = _sequence(value, source)
    for item in items:
        if not isinstance(item, str) or not item or len(item) > _LONGEST_NAME:
            raise ConfigError(f"{source}: {_short(item)} is not a name")
    return tuple(str(item) for item in items)


def _path(value: object, source: str) -> str:
    if not isinstance(value, str) or (value and not value.startswith("/")):
        raise ConfigError(f"{source}: {_short(value)} is not an absolute path")
    return value


def _short(value: object) -> str:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= 40 else text[:37] + "..."
