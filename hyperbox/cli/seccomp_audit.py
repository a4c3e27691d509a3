"""``hyperbox seccomp audit``, ``diff`` and ``merge``: what a profile lacks, and adding it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hyperbox.cli.container_options import add_container_options, container_of
from hyperbox.cli.seccomp_output import add_verb, print_learned, read_profile
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.isolation.default_profile import DEFAULTS, default_profile
from hyperbox.isolation.learning import learn, regenerate
from hyperbox.isolation.profile import FilterRule, Profile
from hyperbox.isolation.store import ProfileStore
from hyperbox.printing import complain, legible
from hyperbox.runtime.containers import prepared
from hyperbox.runtime.options import CONTAINERS
from hyperbox.runtime.recording import Recorded, audited_run

__all__ = ["add_verbs"]


def add_verbs(below: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the three verbs."""
    audited = add_verb(
        below, "audit", "run a container and name each call that the profile would deny", _audit
    )
    audited.description = (
        "Runs COMMAND in a container under profile NAME, except that calls which the profile "
        "denies and its default allows are logged and run. Names each with the programs that made "
        "it. The exit code is 1 if there are any and they were not merged."
    )
    audited.add_argument("name", metavar="NAME")
    audited.add_argument(
        "--merge", action="store_true", help="add them to the profile, as a new version"
    )
    add_container_options(audited)
    CONTAINERS.add_options(audited, ["runtime"])
    differing = add_verb(below, "diff", "what one profile allows and another one does not", _diff)
    where = "a name, NAME@VERSION, a file, or a default profile"
    differing.add_argument("left", metavar="LEFT", help=where)
    differing.add_argument("right", metavar="RIGHT", help=where)
    merged = add_verb(below, "merge", "add the recordings of other profiles to one", _merge)
    merged.add_argument("name", metavar="NAME", help="made if it is new")
    merged.add_argument("others", nargs="+", metavar="OTHER")
    CONTAINERS.add_options(merged, ["default-profile"])


def _audit(arguments: argparse.Namespace) -> int:
    settings = CONTAINERS.resolve(arguments)
    store = ProfileStore(settings.store)
    version = store.load(arguments.name)
    container = replace(container_of(arguments), seccomp=version.profile)
    stdout = sys.stderr.fileno() if arguments.json else sys.stdout.fileno()
    with prepared(container, runtime=settings.runtime) as running:
        found = audited_run(running, version.profile, version.default, stdout=stdout)
    if found.ended.reason:
        complain(f"hyperbox: the command was not started: {found.ended.reason}")
        return found.ended.status
    missing = found.recording.names - version.profile.allowed()
    if arguments.merge and missing:
        default = str(version.metadata.get("default"))
        learned = learn(store, arguments.name, found.recording, default)
        print_learned(learned, sys.stderr)
    _print_audit(arguments, found, missing)
    return ExitCode.PASS if arguments.merge or not missing else ExitCode.GATE_FAILED


def _print_audit(arguments: argparse.Namespace, found: Recorded, missing: frozenset[str]) -> None:
    def programs(names: frozenset[str]) -> Mapping[str, Sequence[str]]:
        return {name: sorted(found.denials.get(name, ())) for name in sorted(names)}

    lacking, refused = programs(missing), programs(found.recording.denied - missing)
    if arguments.json:
        facts = {"ended": str(found.ended), "lost": found.recording.lost, "merged": arguments.merge}
        print(json.dumps({"missing": lacking, "denied_by_default": refused, **facts}))
        return
    for what, calls in (("missing", lacking), ("denied by the default too", refused)):
        for name, paths in calls.items():
            print(legible(f"{what}: {name}, called by {', '.join(paths) or 'an unknown program'}"))
    if not missing:
        print(legible(f"{arguments.name} allows every call of this run"))
    if found.recording.lost:
        print(legible(f"warning: {found.recording.lost} observations were lost"))


def _diff(arguments: argparse.Namespace) -> int:
    store = ProfileStore(CONTAINERS.resolve(arguments).store)
    left, right = (_rules(_named(name, store)) for name in (arguments.left, arguments.right))
    gone, added = sorted(left - right), sorted(right - left)
    if arguments.json:
        print(json.dumps({"removed": gone, "added": added}))
        return ExitCode.PASS
    for sign, lines in (("-", gone), ("+", added)):
        for line in lines:
            print(legible(f"{sign} {line}"))
    if not gone and not added:
        print("both allow the same")
    return ExitCode.PASS


def _named(text: str, store: ProfileStore) -> Profile:
    """Return the profile that a word of the command line means."""
    if text in DEFAULTS:
        return default_profile(text)
    if "/" in text or text.endswith(".json"):
        return read_profile(Path(text))
    name, at, version = text.partition("@")
    if at and not version.isdecimal():
        raise ConfigError(f"{text}: a number is expected after '@'", hint="as in web@2")
    return store.load(name, int(version) if at else None).profile


def _rules(profile: Profile) -> frozenset[str]:
    """Return what a profile says, a line for each call, action and condition."""
    lines = {f"architecture {name}" for name in profile.architectures}
    lines.add(f"other calls: {profile.default_action}")
    lines |= {_line(name, rule) for rule in profile.rules for name in rule.names}
    return frozenset(lines)


def _line(name: str, rule: FilterRule) -> str:
    conditions = [
        f"argument {one.index} {one.comparison} {one.value:#x} {one.value_two:#x}"
        for one in rule.arguments
    ]
    errno = "" if rule.errno is None else f" errno {rule.errno}"
    return " ".join([f"{name}: {rule.action}{errno}", *conditions])


def _merge(arguments: argparse.Namespace) -> int:
    settings = CONTAINERS.resolve(arguments)
    store = ProfileStore(settings.store)
    store.check_name(arguments.name)
    taken = [one for other in arguments.others for one in store.recordings(other)]
    if not taken:
        raise ConfigError(f"no recordings in {', '.join(arguments.others)}")
    for recording in taken:
        store.add_recording(arguments.name, recording)
    learned = regenerate(store, arguments.name, settings.default_profile)
    if arguments.json:
        print(json.dumps({"version": learned.number, "recordings": len(taken)}))
    else:
        print_learned(learned, sys.stdout)
    return ExitCode.PASS
