"""What the verbs of containers share: a profile from a file, and words on what was learned."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import IO

from hyperbox.errors import ConfigError
from hyperbox.foreign import read_json
from hyperbox.isolation.learning import Learned
from hyperbox.isolation.profile import Profile, parse_profile
from hyperbox.isolation.seccomp_gen import ProfileSize
from hyperbox.printing import legible
from hyperbox.runtime.options import CONTAINERS
from hyperbox.settings import add_config

__all__ = ["add_verb", "print_learned", "read_profile", "smaller"]

_LARGEST = 4 << 20


def add_verb(
    below: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """Add a verb below ``seccomp`` with the options that all have; return its parser."""
    parser = below.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
    CONTAINERS.add_options(parser, ["store"])
    add_config(parser)
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
    return parse_profile(read_json(path, most=_LARGEST, refusal=ConfigError), str(path))


def print_learned(learned: Learned, stream: IO[str]) -> None:
    """Print what learning came to, and what makes it doubtful."""
    found, size, whole = learned.completeness, learned.validation.size, learned.validation
    new = found.new_calls[-1] if found.new_calls else 0
    lines = [
        f"profile {learned.name}, version {learned.number}: {len(found.new_calls)} runs, the last "
        f"added {new} calls, one more would add about {found.expected_next:.1f}",
        f"{smaller(size, whole.default_size)}",
        *(f"warning: {text}" for text in found.warnings),
    ]
    print(legible("\n".join(lines)), file=stream, flush=True)


def smaller(size: ProfileSize, default: ProfileSize) -> str:
    """Return how a profile compares with its default, by the three measures."""

    def part(name: str) -> str:
        new, old = getattr(size, name), getattr(default, name)
        return f"{name.replace('_', ' ')} {old} -> {new} ({100 * (new - old) / old:+.0f} %)"

    return ", ".join(part(name) for name in ("names", "json_bytes", "instructions"))
