"""Settings of a validation: one declaration each.

Options, ``--help``, environment variables (``HYPERBOX_<NAME>``) and the keys of
``hyperbox.toml`` all follow from the fields of `Settings`. Precedence: command line,
environment, file, default.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hyperbox.errors import ConfigError
from hyperbox.foreign import read_toml
from hyperbox.harness.declarations import near

__all__ = ["FILE_NAME", "Settings", "add_options", "declarations", "resolve"]

FILE_NAME = "hyperbox.toml"
"""Looked for in the current directory; ``--config`` or ``HYPERBOX_CONFIG`` names another."""

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off", "")


@dataclass(frozen=True)
class Declaration:
    """One setting: name, type, default, help, and where it may be set.

    `kind` is "text", "whole" (a whole number >= `least`), "path", "flag" or "list".
    A setting that is not `in_file` is too dangerous or too fleeting for any file; one that is
    not `in_found_file` decides what runs on this machine, and no file that lies in whatever
    directory the user stands in may say that: one that is named may.
    """

    name: str
    kind: str
    default: Any
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    least: int = 1
    in_file: bool = True
    in_found_file: bool = True

    @property
    def option(self) -> str:
        """Command-line option."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Environment variable."""
        return "HYPERBOX_" + self.name.upper()


def _about(kind: str, text: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "help": text, **more}


@dataclass(frozen=True)
class Settings:
    """What a validation is told; the declarations are the fields."""

    kernel: tuple[str, ...] = field(
        default=("default",),
        metadata=_about(
            "list",
            "kernel series, set (default, full, all), packaged version such as 6.12.90, path of a "
            "bzImage, or host for the kernel that runs here; may be repeated",
            metavar="KERNEL",
        ),
    )
    modules: Path | None = field(
        default=None,
        metadata=_about(
            "path", "modules of the bzImage: a lib/modules/RELEASE directory", metavar="DIR"
        ),
    )
    lane: str = field(
        default="exact",
        metadata=_about(
            "text",
            "how time passes in the guests: exact counts instructions, fast emulates with the "
            "host's time, real is kvm where it works and else fast, auto is kvm and else exact",
            choices=("exact", "fast", "kvm", "real", "auto"),
        ),
    )
    beside: str = field(
        default="none",
        metadata=_about(
            "text",
            "a second lane, measured and reported beside the deciding one: real shows what the "
            "host's time says of work that the exact lane counted",
            choices=("none", "exact", "fast", "kvm", "real"),
        ),
    )
    target: str = field(
        default="vm",
        metadata=_about(
            "text",
            "measure in virtual machines or on this machine",
            choices=("vm", "host"),
            in_found_file=False,
        ),
    )
    allow_host_changes: bool = field(
        default=False,
        metadata=_about("flag", "let experiments change settings of this machine", in_file=False),
    )
    blocks: int | None = field(
        default=None,
        metadata=_about(
            "whole", "blocks per experiment instead of the declared number", metavar="N"
        ),
    )
    seed: int = field(
        default=1,
        metadata=_about("whole", "seed of order and perturbation", metavar="N", least=0),
    )
    jobs: int | None = field(
        default=None,
        metadata=_about(
            "whole", "cells measured at once; by default one per processor", metavar="N"
        ),
    )
    run_directory: Path | None = field(
        default=None,
        metadata=_about("path", "where the run is kept; by default runs/<UTC time>", metavar="DIR"),
    )
    resume: Path | None = field(
        default=None,
        metadata=_about(
            "path", "go on with the run in DIR, as it was planned", metavar="DIR", in_file=False
        ),
    )
    suites: Path | None = field(
        default=None,
        metadata=_about(
            "path",
            "directory with suites of your own (host target only)",
            metavar="DIR",
            in_found_file=False,
        ),
    )
    strict: bool = field(default=False, metadata=_about("flag", "exit 2 if a gate is inconclusive"))


def declarations() -> Iterator[Declaration]:
    """Return every setting's declaration, in the order of the fields."""
    for one in fields(Settings):
        yield Declaration(name=one.name, default=one.default, **one.metadata)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for every setting, and ``--config``; absent options stay absent."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"settings file; by default {FILE_NAME} if it exists",
    )
    for setting in declarations():
        text = _help(setting)
        if setting.kind == "flag":
            parser.add_argument(
                setting.option,
                action=argparse.BooleanOptionalAction,
                default=argparse.SUPPRESS,
                help=text,
            )
            continue
        parser.add_argument(
            setting.option,
            action="append" if setting.kind == "list" else "store",
            default=argparse.SUPPRESS,
            metavar=setting.metavar or None,
            choices=setting.choices or None,
            help=text,
        )


def resolve(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in force.

    Raises
    ------
    ConfigError
        For an unknown key, a wrong value, or a file that cannot be read; it names the place.
    """
    given = vars(arguments)
    named = given.get("config") or environment.get("HYPERBOX_CONFIG")
    path = Path(named) if named else Path(FILE_NAME)
    table = read_toml(path) if named or path.is_file() else {}
    known = {setting.name: setting for setting in declarations()}
    _check_keys(table, path, known, found=not named)
    values: dict[str, Any] = {}
    for setting in known.values():
        if setting.name in given:
            values[setting.name] = _value(setting, given[setting.name], setting.option)
        elif setting.variable in environment:
            raw: Any = environment[setting.variable]
            if setting.kind == "list":
                raw = [word.strip() for word in raw.split(",") if word.strip()]
            values[setting.name] = _value(setting, raw, setting.variable)
        elif setting.name in table:
            where = f"{path}: {setting.name}"
            values[setting.name] = _typed(setting, table[setting.name], where)
    return Settings(**values)


def _help(setting: Declaration) -> str:
    default = ""
    if setting.default not in (None, False):
        shown = setting.default
        default = ", ".join(shown) if setting.kind == "list" else str(shown)
        default = f"default: {default}; "
    return f"{setting.help} ({default}{setting.variable})".replace("%", "%%")


def _check_keys(
    table: Mapping[str, Any], path: Path, known: Mapping[str, Declaration], *, found: bool
) -> None:
    allowed = [name for name, setting in known.items() if setting.in_file]
    for key in table:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}", hint=near(key, allowed))
        option = known[key].option
        if key not in allowed:
            raise ConfigError(f"{path}: {key} cannot be set in a file", hint=f"use {option}")
        if found and not known[key].in_found_file:
            raise ConfigError(
                f"{path}: {key} cannot be set in a file that only lies in the current directory",
                hint=f"use {option}, or name the file: --config {path}",
            )


def _typed(setting: Declaration, value: Any, where: str) -> Any:
    """Check the TOML type before the value: "4" is no number there."""
    types: dict[str, tuple[type, ...]] = {"flag": (bool,), "whole": (int,), "list": (list,)}
    expected = types.get(setting.kind, (str,))
    wrong_bool = isinstance(value, bool) and setting.kind != "flag"
    if wrong_bool or not isinstance(value, expected):
        raise ConfigError(f"{where} must be a {_words(setting)}, not {value!r}")
    return _value(setting, value, where)


def _value(setting: Declaration, raw: Any, where: str) -> Any:
    """Read a value as its kind, from text or from TOML."""
    fault = ConfigError(f"{where} must be a {_words(setting)}, not {raw!r}")
    if setting.kind == "flag":
        return raw if isinstance(raw, bool) else _flag(raw, fault)
    if setting.kind == "whole":
        return _whole(raw, setting.least, fault)
    if not raw:
        raise fault
    if setting.kind == "list":
        if not all(isinstance(word, str) and word for word in raw):
            raise fault
        return tuple(raw)
    if setting.kind == "path":
        return Path(raw)
    if setting.choices and raw not in setting.choices:
        raise ConfigError(f"{where} cannot be {raw!r}", hint=f"one of {', '.join(setting.choices)}")
    return str(raw)


def _flag(raw: str, fault: ConfigError) -> bool:
    if raw.lower() not in _TRUE + _FALSE:
        raise fault
    return raw.lower() in _TRUE


def _whole(raw: str | int, least: int, fault: ConfigError) -> int:
    try:
        number = int(raw)
    except ValueError:
        raise fault from None
    if number < least:
        raise fault
    return number


def _words(setting: Declaration) -> str:
    kinds = {
        "flag": "yes or no",
        "whole": f"whole number from {setting.least} up",
        "list": "list of words",
        "path": "path",
    }
    return kinds.get(setting.kind, "text")
