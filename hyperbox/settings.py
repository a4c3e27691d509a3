"""Settings of the verbs: one declaration each.

A feature's settings are the fields of a frozen dataclass, each made by `declared`. Options,
``--help``, environment variables, keys of ``hyperbox.toml`` and the documentation's tables all
follow from them. Each feature has its table in the file::

    [validate]
    lane = "fast"

    [tuner]
    act = 70

Precedence: command line, environment, file, default.
"""

from __future__ import annotations

import argparse
import enum
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from hyperbox.errors import ConfigError, near
from hyperbox.foreign import read_toml

__all__ = [
    "FILE_NAME",
    "TABLES",
    "InFile",
    "Setting",
    "SettingKind",
    "SettingsTable",
    "add_config",
    "declared",
    "markdown",
]

FILE_NAME = "hyperbox.toml"
"""Looked for in the current directory; ``--config`` or ``HYPERBOX_CONFIG`` names another."""

TABLES = ("containers", "daemon", "images", "tuner", "validate")
"""Every table that the file may have: each verb reads its own and knows the others' names."""

T = TypeVar("T")

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off", "")


class SettingKind(enum.Enum):
    """What a setting's value is; the text says so in an error."""

    TEXT = "text"
    PATH = "path"
    FLAG = "yes or no"
    LIST = "list of words"
    NUMBER = "number"
    WHOLE = "whole number"


class InFile(enum.Enum):
    """Which files may have a setting."""

    ANY = "any"
    NAMED = "named"
    """One that ``--config`` names. Whoever can write to a directory would decide it else."""
    NONE = "none"
    """None: too dangerous or too fleeting."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    Parameters
    ----------
    name
        As option and key have it, with dashes.
    least, most
        Bounds of a number, both allowed; None for no bound.
    usual
        What the default is, for people, where `default` does not say it.
    """

    name: str
    help: str
    kind: SettingKind = SettingKind.TEXT
    default: Any = None
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    in_file: InFile = InFile.ANY
    usual: str = ""

    @property
    def option(self) -> str:
        """Command-line option."""
        return f"--{self.name}"

    @property
    def attribute(self) -> str:
        """Name in Python."""
        return self.name.replace("-", "_")

    @property
    def default_text(self) -> str:
        """The default as people write it; "" if there is none."""
        if self.usual or self.default is None or self.default is False:
            return self.usual
        if self.kind is SettingKind.LIST:
            return ", ".join(self.default)
        return _plain(self.default)

    @property
    def wanted(self) -> str:
        """What a value must be, for an error."""
        if self.kind not in (SettingKind.NUMBER, SettingKind.WHOLE) or self.least is None:
            return f"a {self.kind.value}" if self.kind is not SettingKind.FLAG else self.kind.value
        to = "up" if self.most is None else f"to {_plain(self.most)}"
        return f"a {self.kind.value} from {_plain(self.least)} {to}"


def declared(default: Any, text: str, kind: SettingKind = SettingKind.TEXT, **more: Any) -> Any:
    """Return the field of a dataclass that declares a setting.

    Parameters
    ----------
    text
        What the setting is, for the help.
    more
        The other fields of `Setting`.
    """
    return field(default=default, metadata={"help": text, "kind": kind, **more})


@dataclass(frozen=True)
class SettingsTable(Generic[T]):
    """The settings of one feature: a table of the file, and the dataclass of their values.

    Parameters
    ----------
    name
        Of the table, and by default of the variables: ``HYPERBOX_<NAME>_<SETTING>``.
    declares
        The dataclass; all of its fields are `declared`.
    prefix
        Of the variables, where another one is meant.
    in_file
        Which files may have a setting that does not say so itself.
    """

    name: str
    declares: type[T]
    prefix: str = ""
    in_file: InFile = InFile.ANY

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The declarations, in the order of the fields."""
        return tuple(
            Setting(
                one.name.replace("_", "-"),
                default=one.default,
                **{"in_file": self.in_file, **one.metadata},
            )
            for one in fields(self.declares)  # type: ignore[arg-type]
        )

    def variable(self, setting: Setting) -> str:
        """Return the environment variable of a setting."""
        prefix = self.prefix or f"HYPERBOX_{self.name.upper()}_"
        return f"{prefix}{setting.attribute.upper()}"

    def add_options(
        self, parser: argparse.ArgumentParser, names: Collection[str] | None = None
    ) -> None:
        """Add an option for every setting, or those named; absent options stay absent."""
        for setting in self.settings:
            if names is not None and setting.name not in names:
                continue
            text = self._help(setting)
            if setting.kind is SettingKind.FLAG:
                parser.add_argument(
                    setting.option,
                    action=argparse.BooleanOptionalAction,
                    default=argparse.SUPPRESS,
                    help=text,
                )
                continue
            parser.add_argument(
                setting.option,
                action="append" if setting.kind is SettingKind.LIST else "store",
                default=argparse.SUPPRESS,
                metavar=setting.metavar,
                choices=setting.choices or None,
                help=text,
            )

    def resolve(
        self, arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ
    ) -> T:
        """Return the settings in force.

        Raises
        ------
        ConfigError
            For an unknown key, a wrong value, or a file that cannot be read; it names the place.
        """
        given = vars(arguments)
        path, table = self._read(given.get("config"), environment)
        found: dict[str, Any] = {}
        for setting in self.settings:
            variable = self.variable(setting)
            if setting.attribute in given:
                found[setting.attribute] = _value(setting, given[setting.attribute], setting.option)
            elif variable in environment:
                raw: Any = environment[variable]
                if setting.kind is SettingKind.LIST:
                    raw = [word.strip() for word in raw.split(",") if word.strip()]
                found[setting.attribute] = _value(setting, raw, variable)
            elif setting.name in table:
                where = f"{path}: {self.name}.{setting.name}"
                found[setting.attribute] = _typed(setting, table[setting.name], where)
        return self.declares(**found)

    def _help(self, setting: Setting) -> str:
        default = f"default: {setting.default_text}; " if setting.default_text else ""
        return f"{setting.help} ({default}{self.variable(setting)})".replace("%", "%%")

    def _read(
        self, config: str | os.PathLike[str] | None, environment: Mapping[str, str]
    ) -> tuple[Path, Mapping[str, Any]]:
        """Return the settings file and this feature's table in it, its keys checked."""
        named = config or environment.get("HYPERBOX_CONFIG")
        path = Path(named or FILE_NAME)
        document = read_toml(path) if named or path.is_file() else {}
        for name, content in document.items():
            if not isinstance(content, dict):
                raise ConfigError(
                    f"{path}: {name!r} stands outside of any table",
                    hint=f"settings of {self.name} stand below [{self.name}]",
                )
            if name not in TABLES:
                raise ConfigError(f"{path}: unknown table [{name}]", hint=near(name, TABLES))
        table = {key.replace("_", "-"): value for key, value in document.get(self.name, {}).items()}
        known = {setting.name: setting for setting in self.settings}
        usable = [one.name for one in self.settings if one.in_file is not InFile.NONE]
        for key in table:
            place = f"{path}: {self.name}.{key}"
            if key not in known:
                raise ConfigError(f"{place}: unknown key", hint=near(key, usable))
            if key not in usable:
                raise ConfigError(
                    f"{place} cannot be set in a file", hint=f"use {known[key].option}"
                )
            if not named and known[key].in_file is InFile.NAMED:
                raise ConfigError(
                    f"{place} cannot be set in a file that only lies in the current directory",
                    hint=f"use {known[key].option}, or name the file: --config {path}",
                )
        return path, table


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"settings file (default: {FILE_NAME} if it exists; HYPERBOX_CONFIG)",
    )


def markdown(table: SettingsTable[Any]) -> Iterator[str]:
    """Return the lines of the documentation's table of a feature's settings."""
    first = table.variable(table.settings[0])
    yield f"| `[{table.name}]`, `{first}` and so on | default | |"
    yield "|---|---|---|"
    for setting in table.settings:
        where = ""
        if setting.in_file is not table.in_file:
            where = " (option only)" if setting.in_file is InFile.NONE else " (named file)"
        default = f"`{setting.default_text}`" if setting.default_text else ""
        choices = f"; one of {', '.join(setting.choices)}" if setting.choices else ""
        yield f"| `{setting.name}`{where} | {default} | {setting.help}{choices} |"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _typed(setting: Setting, value: Any, where: str) -> Any:
    """Check the TOML type before the value: "4" is not a number there."""
    types: Mapping[SettingKind, tuple[type, ...]] = {
        SettingKind.FLAG: (bool,),
        SettingKind.WHOLE: (int,),
        SettingKind.NUMBER: (int, float),
        SettingKind.LIST: (list,),
    }
    wrong_bool = isinstance(value, bool) and setting.kind is not SettingKind.FLAG
    if wrong_bool or not isinstance(value, types.get(setting.kind, (str,))):
        raise _fault(setting, value, where)
    return _value(setting, value, where)


def _value(setting: Setting, raw: Any, where: str) -> Any:
    """Read a value as its kind, from text or from TOML."""
    if setting.kind is SettingKind.FLAG:
        if isinstance(raw, str) and raw.lower() not in _TRUE + _FALSE:
            raise _fault(setting, raw, where)
        return raw.lower() in _TRUE if isinstance(raw, str) else bool(raw)
    if setting.kind in (SettingKind.WHOLE, SettingKind.NUMBER):
        return _number(setting, raw, where)
    if not raw:
        raise _fault(setting, raw, where)
    if setting.kind is SettingKind.LIST:
        if not all(isinstance(word, str) and word for word in raw):
            raise _fault(setting, raw, where)
        return tuple(raw)
    if setting.choices and raw not in setting.choices:
        raise ConfigError(f"{where} cannot be {raw!r}", hint=f"one of {', '.join(setting.choices)}")
    return Path(raw) if setting.kind is SettingKind.PATH else str(raw)


def _number(setting: Setting, raw: str | float, where: str) -> float:
    whole = setting.kind is SettingKind.WHOLE
    try:
        number = int(raw) if whole else float(raw)
    except ValueError:
        raise _fault(setting, raw, where) from None
    least = float("-inf") if setting.least is None else setting.least
    most = float("inf") if setting.most is None else setting.most
    if not least <= number <= most:  # NaN is not either
        raise _fault(setting, raw, where)
    return number


def _fault(setting: Setting, raw: Any, where: str) -> ConfigError:
    return ConfigError(f"{where} must be {setting.wanted}, not {raw!r}")
