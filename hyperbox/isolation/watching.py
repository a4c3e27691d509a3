"""The profile that a container runs under so that a recorder sees its calls. Pure."""

from __future__ import annotations

from dataclasses import replace

from hyperbox.isolation.profile import FilterAction, FilterRule, Profile

__all__ = ["LOG_DENIED", "watched"]

LOG_DENIED = "SECCOMP_FILTER_FLAG_LOG"
"""Denied calls are logged as well (Linux 4.14); see `Profile.flags`."""


def watched(
    default: Profile,
    action: FilterAction,
    known: frozenset[str] = frozenset(),
) -> Profile:
    """Return a profile that lets through what a default does, and acts on what is to be seen.

    Parameters
    ----------
    action
        `FilterAction.LOG` or `FilterAction.NOTIFY`, for calls that the default allows; after it
        they run.
    known
        Names that are allowed without it, for example those of a profile that is audited.
    """
    rules: list[FilterRule] = []
    for rule in default.rules:
        if rule.action is not FilterAction.ALLOW:
            rules.append(rule)
            continue
        names = {True: [], False: []}  # type: dict[bool, list[str]]
        for name in rule.names:
            names[name in known].append(name)
        rules += [
            replace(rule, names=tuple(found), action=FilterAction.ALLOW if is_known else action)
            for is_known, found in names.items()
            if found
        ]
    return replace(default, rules=tuple(rules)).canonical()
