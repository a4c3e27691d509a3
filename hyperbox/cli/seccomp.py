"""``hyperbox seccomp``: the store of learned profiles."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO

from rich.table import Table

from hyperbox.console import TerminalConsole
from hyperbox.errors import ConfigError, ExitCode
from hyperbox.files import write_bytes
from hyperbox.isolation.default_profile import DEFAULTS, NEWEST
from hyperbox.isolation.learning import Learned, regenerate
from hyperbox.isolation.profile import Profile, parse_profile
from hyperbox.isolation.seccomp_gen import Size, validate
from hyperbox.isolation.store import STORE, ProfileStore, StoredVersion
from hyperbox.printing import legible, one_line

__all__ = ["add_parser", "add_store_option", "print_learned", "read_profile"]

_LARGEST = 4 << 20


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--store``."""
    parser.add_argument(
        "--store", type=Path, default=STORE, metavar="DIR", help=f"profiles (default {STORE})"
    )


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "seccomp",
        help="list, show, generate, validate and export learned seccomp profiles",
        description="Works on profiles that 'hyperbox run --learn-seccomp' has learned.",
    )
    below = parser.add_subparsers(dest="seccomp_verb", required=True, metavar="VERB")
    _verb(below, "list", "every profile with its size", _list, named=False)
    shown = _verb(below, "show", "one profile: size, completeness, reasons", _show)
    shown.add_argument("--version", type=int, metavar="N", help="default: the one in force")
    made = _verb(below, "generate", "make the profile anew from its recordings", _generate)
    made.add_argument("--default", choices=tuple(DEFAULTS), default=NEWEST, help="to contain it")
    _verb(below, "validate", "prove that the profile allows nothing more than its default", _prove)
    back = _verb(below, "rollback", "put an earlier version in force", _roll_back)
    back.add_argument("--version", type=int, metavar="N", help="default: the one before")
    out = _verb(below, "export", "write the profile for another engine", _export)
    out.add_argument("--output", type=Path, default=Path("/dev/stdout"), metavar="FILE")


def _verb(
    below: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: object,
    *,
    named: bool = True,
) -> argparse.ArgumentParser:
    parser = below.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
    if named:
        parser.add_argument("name", metavar="NAME")
    add_store_option(parser)
    if name != "export":
        parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def read_profile(path: Path) -> Profile:
    """Return a profile from a file in the OCI form.

    Raises
    ------
    ConfigError
        If it cannot be read or is not a profile.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ConfigError(f"{path}: larger than {_LARGEST} bytes")
        document = json.loads(data)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: not JSON") from None
    return parse_profile(document, str(path))


def print_learned(learned: Learned, stream: IO[str]) -> None:
    """Print what learning came to, and what makes it doubtful."""
    found, size, whole = learned.completeness, learned.validation.size, learned.validation
    new = found.new_calls[-1] if found.new_calls else 0
    lines = [
        f"profile {learned.name}, version {learned.number}: {len(found.new_calls)} runs, the last "
        f"added {new} calls, one more would add about {found.expected_next:.1f}",
        f"{_smaller(size, whole.default_size)}",
        *(f"warning: {text}" for text in found.warnings),
    ]
    print(legible("\n".join(lines)), file=stream, flush=True)


def _smaller(size: Size, default: Size) -> str:
    def part(name: str) -> str:
        new, old = getattr(size, name), getattr(default, name)
        return f"{name.replace('_', ' ')} {old} -> {new} ({100 * (new - old) / old:+.0f} %)"

    return ", ".join(part(name) for name in ("names", "json_bytes", "instructions"))


def _list(arguments: argparse.Namespace) -> int:
    store = ProfileStore(arguments.store)
    rows = [(name, store.current(name), len(store.recordings(name))) for name in store.names()]
    if arguments.json:
        keys = ("name", "version", "runs")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return ExitCode.PASS
    table = Table("Name", "Version", "Runs")
    for name, current, runs in rows:
        table.add_row(name, str(current or "-"), str(runs))
    TerminalConsole().print(table if rows else f"no profiles in {arguments.store}")
    return ExitCode.PASS


def _show(arguments: argparse.Namespace) -> int:
    found = ProfileStore(arguments.store).load(arguments.name, arguments.version)
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
    learned = regenerate(ProfileStore(arguments.store), arguments.name, arguments.default)
    if arguments.json:
        reasons = {name: str(reason) for name, reason in learned.generated.reasons.items()}
        print(json.dumps({"version": learned.number, "reasons": reasons}))
    else:
        print_learned(learned, sys.stdout)
    return ExitCode.PASS


def _prove(arguments: argparse.Namespace) -> int:
    found = ProfileStore(arguments.store).load(arguments.name)
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
        print(one_line(_smaller(validation.size, validation.default_size)))
        for violation in proof.violations:
            print(one_line(f"allowed here, not by the default: {violation.call}"))
    return ExitCode.PASS if proof.holds else ExitCode.GATE_FAILED


def _roll_back(arguments: argparse.Namespace) -> int:
    number = ProfileStore(arguments.store).roll_back(arguments.name, arguments.version)
    if arguments.json:
        print(json.dumps({"version": number}))
    else:
        print(one_line(f"version {number} is in force"))
    return ExitCode.PASS


def _export(arguments: argparse.Namespace) -> int:
    found = ProfileStore(arguments.store).load(arguments.name)
    # Docker, Podman and Kubernetes (localhostProfile) all take the OCI form.
    write_bytes(arguments.output, found.profile.encoded())
    return ExitCode.PASS
