"""What a run may go on with: its plan as declared today, on the machine that the user names.

A run directory is a file of others until its plan was compared with the declarations at hand:
whoever wrote it could have any program in it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hyperbox.config import Settings
from hyperbox.errors import ConfigError
from hyperbox.harness.declarations import load_suites
from hyperbox.harness.model import Experiment, Gate
from hyperbox.harness.runs.plan import Plan
from hyperbox.harness.runs.store import RunInfo, RunStore

__all__ = ["resume_command", "resumed_info"]

_SHOWN = 3


def resumed_info(settings: Settings, store: RunStore, names: Sequence[str]) -> RunInfo:
    """Return what a run to be resumed was planned with.

    Raises
    ------
    ConfigError
        If there are names, if the run would do on this machine what the settings do not
        allow, or if its plan is not what the suites declare.
    """
    if names:
        raise ConfigError(
            "a resumed run decides the gates that it was planned with",
            hint="leave the names away, or start a new run",
        )
    info = store.info()
    _check_allowed(settings, store, info)
    suites = load_suites(settings.suites if info.document["target"] == "host" else None)
    experiments = {one.id: one for suite in suites for one in suite.experiments}
    gates = {one.id: one for suite in suites for one in suite.gates}
    changed = next(_changed(info.plan, experiments, gates), "")
    if changed:
        raise ConfigError(
            f"cannot go on with {store.directory}: {changed}",
            hint="use the suites that the run was planned with, or start a new run",
        )
    return info


def resume_command(store: RunStore, info: RunInfo) -> str:
    """Return the command that goes on with a run, with all that it does to this machine."""
    words = ["hyperbox", "validate", "--resume", os.fspath(store.directory)]
    if info.document["target"] == "host":
        words += ["--target", "host"]
        if info.document["asked"]["suites"]:
            words += ["--suites", info.document["asked"]["suites"]]
        if info.document["asked"]["allow_host_changes"]:
            words.append("--allow-host-changes")
    return shlex.join(words)


def _check_allowed(settings: Settings, store: RunStore, info: RunInfo) -> None:
    """Refuse a run on this machine unless the settings say all that it may do there."""
    asked, target = info.document["asked"], info.document["target"]
    suites = Path(asked["suites"]) if asked["suites"] else None
    own = settings.suites.resolve() if settings.suites else None
    allowed = bool(asked["allow_host_changes"])
    if target == settings.target and (
        target != "host" or (own, settings.allow_host_changes) == (suites, allowed)
    ):
        return
    if target != "host":
        raise ConfigError(
            f"{store.directory} was measured in virtual machines, not on this machine",
            hint=resume_command(store, info),
        )
    programs = [shlex.join(one.program) for one in info.plan.experiments]
    more = f" and {len(programs) - _SHOWN} more" if len(programs) > _SHOWN else ""
    where = f" of the suites in {suites}" if suites else ""
    changes = ", which may change its settings" if allowed else ""
    raise ConfigError(
        f"{store.directory} runs programs{where} on this machine{changes}: "
        f"{'; '.join(programs[:_SHOWN])}{more}",
        hint=f"if that is wanted: {resume_command(store, info)}",
    )


def _changed(
    plan: Plan, experiments: dict[str, Experiment], gates: dict[str, Gate]
) -> Iterator[str]:
    """Say in what a plan is not what is declared, its number of blocks aside."""
    for planned in plan.experiments:
        declared = experiments.get(planned.id)
        as_planned = replace(declared, blocks=planned.blocks) if declared else None
        yield from _differing(f"experiment {planned.id}", planned, as_planned)
    for gate in plan.gates:
        yield from _differing(f"gate {gate.id}", gate, gates.get(gate.id))


def _differing(name: str, planned: Any, declared: Any) -> Iterator[str]:
    if declared is None:
        yield f"{name} of its plan is not declared"
        return
    keys = [one.name for one in fields(planned)]
    other = [key for key in keys if getattr(planned, key) != getattr(declared, key)]
    if other:
        yield f"{name} of its plan is declared with other {', '.join(other)}"
