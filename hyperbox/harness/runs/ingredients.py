"""What decides a measurement beside its plan, as records name it, and whether it changed since.

In the exact lane these ingredients decide the numbers to the last bit; in every lane a run is of
one build of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hyperbox.errors import ConfigError
from hyperbox.harness.lab.guest_lock import moved_packages
from hyperbox.harness.lab.machine import Laboratory
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.store import RunStore

__all__ = ["check_unchanged_since", "differing_ingredients", "fact"]

_PACKAGES = "guest packages"
# By their places in a record's environment.
_BEFORE_BOOT: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "QEMU": (("qemu", "sha256"),),
    "kernel": (("kernel", "sha256"), ("kernel", "release"), ("kernel", "build")),
    "guest root": (("images", "root"),),
    "project's code": (("images", "project"), ("images", "agent")),
    "layers": (("images", "layers"),),
    _PACKAGES: (("guest_packages",),),
    "suite's programs": (("programs",),),
    "command line": (("commandline",),),
    "memory": (("memory_bytes",),),
    "processors": (("cpus",),),
}
_AFTER_BOOT: Mapping[str, tuple[tuple[str, ...], ...]] = {"snapshot": (("repeatability", "probe"),)}
# Facts that records of hyperbox before December 2026 lack.
_LATER_ON_RECORD = (
    ("kernel", "build"),
    ("programs",),
    ("images", "agent"),
    ("images", "layers"),
    ("guest_packages",),
)
_DIGITS = 12


def differing_ingredients(known: Mapping[str, Any], again: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the ingredients that differ between two records' environments.

    Packages of the guests that moved are named one by one.
    """
    found = _differing(known, again, {**_BEFORE_BOOT, **_AFTER_BOOT})
    return tuple(f"{name} ({found[name]})" if name == _PACKAGES else name for name in found)


def check_unchanged_since(plan: Plan, store: RunStore, laboratory: Laboratory) -> None:
    """Refuse to measure the rest of a run with other ingredients than the cells on record.

    Raises
    ------
    ConfigError
        If one differs; it names all of the first such cell.
    """
    for cell in plan.cells():
        record = store.latest(cell)
        if record is None or not record.finished:
            continue
        known = record.document["environment"]
        now = laboratory.fingerprint(cell.kernel, plan.experiment(cell.experiment), cell.lane)
        differing = _differing(known, now, _BEFORE_BOOT)
        if differing:
            changes = "; ".join(f"{name} ({values})" for name, values in differing.items())
            raise ConfigError(
                f"cannot go on with {store.directory}: since {cell.key} was measured "
                f"these have changed: {changes}",
                hint="restore them, or start a new run: one run has one build of everything",
            )


def fact(environment: Mapping[str, Any], path: Sequence[str]) -> Any:
    """Return what an environment has at a path; None if nothing."""
    found: Any = environment
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _differing(
    known: Mapping[str, Any],
    again: Mapping[str, Any],
    ingredients: Mapping[str, tuple[tuple[str, ...], ...]],
) -> dict[str, str]:
    """Return the ingredients that differ, each with "then -> now" of its first differing fact."""
    found: dict[str, str] = {}
    for name, paths in ingredients.items():
        for path in paths:
            then, now = fact(known, path), fact(again, path)
            if then != now and not (then is None and path in _LATER_ON_RECORD):
                found.setdefault(name, _change(then, now))
    return found


def _change(then: object, now: object) -> str:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        before, after = ({key: _short(one) for key, one in some.items()} for some in (then, now))
        return ", ".join(moved_packages(before, after))
    return f"{_short(then)} -> {_short(now)}"


def _short(value: object) -> str:
    """Return a fact, or the beginning of a hash."""
    text = "unknown" if value is None else str(value)
    return text[:_DIGITS] if len(text) == 64 else text
