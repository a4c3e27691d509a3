"""The tuner's settings: one declaration each, from which options and file keys follow.

The file is TOML with one table::

    [tuner]
    interval = 5            # seconds between readings
    act = 80                # percent
    streaming = ["/sys/fs/cgroup/backup.slice"]
    fast-swap = "zram"

The command line wins over the file.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hyperbox.errors import ConfigError
from hyperbox.foreign import read_toml
from hyperbox.memory.actuators import LEAST_SWAPPINESS
from hyperbox.memory.decisions import Rules
from hyperbox.memory.tuning import FAST_SWAPS, TunerOptions

__all__ = ["add_options", "from_table", "options_from"]


@dataclass(frozen=True)
class _Number:
    """A setting that is a number: of the rules (`rule`), or of the options themselves."""

    name: str
    help: str
    least: float
    most: float
    rule: str = ""
    whole: bool = False
    metavar: str = "N"


_INTERVAL = _Number("interval", "seconds between readings", 1, 300, "interval_s", metavar="S")
_NUMBERS = (
    _INTERVAL,
    _Number("act", "act above this many percent", 1, 100, "act", metavar="PERCENT"),
    _Number(
        "watch-above", "watch above this, relieve page cache", 1, 100, "watch", metavar="PERCENT"
    ),
    _Number("calm-below", "calm is below this", 1, 100, "calm", metavar="PERCENT"),
    _Number("relax", "seconds of calm before giving back", 1, 86400, "relax_s", metavar="S"),
    _Number("settle", "seconds that a step may take to work", 0, 600, "settle_s", metavar="S"),
    _Number("measure", "seconds that a step is measured", 1, 600, "measure_s", metavar="S"),
    _Number("backoff", "seconds before a failed step again", 1, 86400, "backoff_s", metavar="S"),
    _Number(
        "zram-mib",
        "MiB that zram may hold (default: as memory, up to 8192)",
        1,
        1 << 24,
        whole=True,
    ),
    _Number(
        "swappiness",
        f"swappiness with fast swap, never below {LEAST_SWAPPINESS} (default 100)",
        LEAST_SWAPPINESS,
        200,
        whole=True,
    ),
)
_OTHERS = ("cgroup", "streaming", "fast-swap", "dry-run")


def add_options(
    parser: argparse.ArgumentParser,
    *,
    observing: bool = True,
    rules: bool = True,
    acting: bool = True,
) -> None:
    """Add ``--config`` and an option for every setting; absent options stay absent.

    Parameters
    ----------
    observing, rules, acting
        Which settings have an effect: of what is read, of the decisions, of what is changed.
    """
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with a [tuner] table")
    if acting:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            default=argparse.SUPPRESS,
            help="decide, and change nothing",
        )
        parser.add_argument(
            "--fast-swap",
            choices=FAST_SWAPS,
            default=argparse.SUPPRESS,
            help="compressed swap ahead of need (default auto: zswap before a disk, else zram)",
        )
    if observing:
        parser.add_argument(
            "--cgroup",
            default=argparse.SUPPRESS,
            metavar="PATH",
            help="judge by this cgroup's pressure instead of the machine's",
        )
        parser.add_argument(
            "--streaming",
            action="append",
            default=argparse.SUPPRESS,
            metavar="PATH",
            help="cgroup whose page cache may be given up; may be repeated",
        )
    for number in _NUMBERS:
        has_effect = acting if not number.rule else rules or (observing and number is _INTERVAL)
        if has_effect:
            parser.add_argument(
                f"--{number.name}",
                default=argparse.SUPPRESS,
                metavar=number.metavar,
                help=number.help + _default(number),
            )


def options_from(arguments: argparse.Namespace) -> TunerOptions:
    """Return the options in force.

    Raises
    ------
    ConfigError
        For an unknown key, a wrong value, or a file that cannot be read; it names the place.
    """
    given = {name.replace("_", "-"): value for name, value in vars(arguments).items()}
    options = TunerOptions()
    path = given.get("config")
    if path is not None:
        options = from_table(_table(path), f"{path}: ", options)
    known = (*_OTHERS, *(number.name for number in _NUMBERS))
    chosen = {name: value for name, value in given.items() if name in known}
    return from_table(chosen, "--", options)


def from_table(
    table: Mapping[str, object], where: str, base: TunerOptions | None = None
) -> TunerOptions:
    """Return options changed by a table of settings; `where` precedes a name in errors.

    Raises
    ------
    ConfigError
        For an unknown key or a wrong value.
    """
    options = base or TunerOptions()
    numbers = {number.name: number for number in _NUMBERS}
    changes: dict[str, object] = {}
    rules: dict[str, float] = {}
    for name, value in table.items():
        if name in numbers:
            number = numbers[name]
            found = _number(number, value, f"{where}{name}")
            if number.rule:
                rules[number.rule] = found
            else:
                changes[name.replace("-", "_")] = int(found)
        else:
            changes |= _other(name, value, where)
    changes["rules"] = _ordered(replace(options.rules, **rules))  # type: ignore[arg-type]
    return replace(options, **changes)  # type: ignore[arg-type]


def _other(name: str, value: object, where: str) -> dict[str, object]:
    if name == "dry-run" and isinstance(value, bool):
        return {"dry_run": value}
    if name == "fast-swap" and isinstance(value, str):
        return {"fast_swap": value}
    if name == "cgroup" and isinstance(value, str):
        return {"group": _directory(value, f"{where}{name}")}
    if name == "streaming" and isinstance(value, list):
        return {"streaming": tuple(_absolute(one, f"{where}{name}") for one in value)}
    if name in _OTHERS:
        raise ConfigError(f"{where}{name} cannot be {value!r}")
    known = (*_OTHERS, *(number.name for number in _NUMBERS))
    close = difflib.get_close_matches(name, known, 1)
    raise ConfigError(
        f"{where}unknown key {name!r}", hint=f"did you mean {close[0]}?" if close else ""
    )


def _number(number: _Number, value: object, where: str) -> float:
    found = _float(value)
    if found is None or not number.least <= found <= number.most or (number.whole and found % 1):
        kind = "a whole number" if number.whole else "a number"
        raise ConfigError(
            f"{where} cannot be {value!r}",
            hint=f"give {kind} from {number.least:g} to {number.most:g}",
        )
    return found


def _default(number: _Number) -> str:
    """Return what a rule is without the option; the others' help says it by itself."""
    return f" (default {getattr(Rules(), number.rule):g})" if number.rule else ""


def _float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _ordered(rules: Rules) -> Rules:
    if not rules.calm <= rules.watch <= rules.act:
        raise ConfigError(
            f"thresholds out of order: calm {rules.calm:g}, watch {rules.watch:g}, "
            f"act {rules.act:g}",
            hint="calm-below <= watch-above <= act",
        )
    return rules


def _directory(text: str, where: str) -> Path:
    path = _absolute(text, where)
    if not path.is_dir():
        raise ConfigError(f"{where}: no directory {path}", hint="name a cgroup v2 directory")
    return path


def _absolute(text: object, where: str) -> Path:
    if not isinstance(text, str) or not text.startswith("/"):
        raise ConfigError(f"{where} cannot be {text!r}", hint="give a path from / on")
    return Path(text)


def _table(path: Path) -> Mapping[str, object]:
    document = read_toml(path)
    for name in document:
        if name != "tuner":
            hint = "settings stand in one table, [tuner]"
            raise ConfigError(f"{path}: unknown table or key {name!r}", hint=hint)
    table = document.get("tuner", {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tuner must be a table")
    return table
