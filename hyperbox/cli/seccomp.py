"""``hyperbox seccomp``: the store of learned profiles."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from hyperbox.cli import seccomp_audit
from hyperbox.cli.seccomp_output import add_verb, print_learned, smaller
from hyperbox.console import TerminalConsole
from hyperbox.errors import ExitCode
from hyperbox.files import write_bytes
from hyperbox.isolation.learning import regenerate
from hyperbox.isolation.seccomp_gen import validate
from hyperbox.isolation.store import ProfileStore, StoredVersion
from hyperbox.printing import legible, one_line
from hyperbox.runtime.options import CONTAINERS

__all__ = ["add_parser"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "seccomp",
        help="list, show, generate, validate, audit and export learned seccomp profiles",
        description="Works on profiles that 'hyperbox run --learn-seccomp' has learned.",
    )
    below = parser.add_subparsers(dest="seccomp_verb", required=True, metavar="VERB")
    add_verb(below, "list", "every profile with its size", _list)
    shown = add_verb(below, "show", "one profile: size, completeness, reasons", _show)
    _add_name(shown)
    shown.add_argument("--version", type=int, metavar="N", help="default: the one in force")
    made = add_verb(below, "generate", "make the profile anew from its recordings", _generate)
    _add_name(made)
    CONTAINERS.add_options(made, ["default-profile"])
    proof = "prove that the profile allows nothing more than its default"
    _add_name(add_verb(below, "validate", proof, _prove))
    back = add_verb(below, "rollback", "put an earlier version in force", _roll_back)
    _add_name(back)
    back.add_argument("--version", type=int, metavar="N", help="default: the one before")
    out = add_verb(below, "export", "write the profile for another engine", _export)
    _add_name(out)
    out.add_argument("--output", type=Path, default=Path("/dev/stdout"), metavar="FILE")
    seccomp_audit.add_verbs(below)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")


def _store(arguments: argparse.Namespace) -> ProfileStore:
    return ProfileStore(CONTAINERS.resolve(arguments).store)


def _list(arguments: argparse.Namespace) -> int:
    store = _store(arguments)
    rows = [(name, store.current(name), len(store.recordings(name))) for name in store.names()]
    if arguments.json:
        keys = ("name", "version", "runs")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return ExitCode.PASS
    table = Table("Name", "Version", "Runs")
    for name, current, runs in rows:
        table.add_row(name, str(current or "-"), str(runs))
    TerminalConsole().print(table if rows else f"no profiles in {store.directory}")
    return ExitCode.PASS


def _show(arguments: argparse.Namespace) -> int:
    found = _store(arguments).load(arguments.name, arguments.version)
    if arguments.json:
        document = {"number": found.number, "profile": found.profile.as_json()}
        print(json.dumps({**document, "metadata": found.metadata}))
        return ExitCode.PASS
    for line in _lines(found):
        print(legible(line))
    return ExitCode.PASS


def _lines(found: StoredVersion) -> list[str]:
    facts = found.metadata
    return [
        f"{found.name}, version {found.number}, {facts.get('generated', 'at an unknown time')}",
        f"default: {facts.get('default')}; runs: {facts.get('runs')}",
        f"programs: {', '.join(facts.get('programs', [])) or 'none seen'}",
        *(f"warning: {text}" for text in facts.get("warnings", [])),
        "allowed: " + " ".join(sorted(found.profile.allowed())),
    ]


def _generate(arguments: argparse.Namespace) -> int:
    settings = CONTAINERS.resolve(arguments)
    store = ProfileStore(settings.store)
    learned = regenerate(store, arguments.name, settings.default_profile)
    if arguments.json:
        reasons = {name: str(reason) for name, reason in learned.generated.reasons.items()}
        print(json.dumps({"version": learned.number, "reasons": reasons}))
    else:
        print_learned(learned, sys.stdout)
    return ExitCode.PASS


def _prove(arguments: argparse.Namespace) -> int:
    found = _store(arguments).load(arguments.name)
    validation = validate(found.profile, found.default)
    proof = validation.containment
    if arguments.json:
        sizes = {"size": asdict(validation.size), "default_size": asdict(validation.default_size)}
        print(json.dumps({"holds": proof.holds, "classes": proof.classes, **sizes}))
    else:
        what = "nothing" if proof.holds else "more"
        head = (
            f"{arguments.name} allows {what} beyond its default; {proof.classes} classes of calls"
        )
        print(one_line(head))
        print(one_line(smaller(validation.size, validation.default_size)))
        for violation in proof.violations:
            print(one_line(f"allowed here, not by the default: {violation.call}"))
    return ExitCode.PASS if proof.holds else ExitCode.GATE_FAILED


def _roll_back(arguments: argparse.Namespace) -> int:
    number = _store(arguments).roll_back(arguments.name, arguments.version)
    if arguments.json:
        print(json.dumps({"version": number}))
    else:
        print(one_line(f"version {number} is in force"))
    return ExitCode.PASS


def _export(arguments: argparse.Namespace) -> int:
    found = _store(arguments).load(arguments.name)
    # Docker, Podman and Kubernetes (localhostProfile) all take the OCI form.
    data = found.profile.encoded()
    write_bytes(arguments.output, data)
    if arguments.json:
        digest = hashlib.sha256(data).hexdigest()
        facts = {"name": found.name, "version": found.number, "sha256": digest}
        print(json.dumps({**facts, "output": os.fspath(arguments.output)}))
    return ExitCode.PASS
