"""The tuner's settings: options, variables, and the table ``[tuner]`` of the settings file.

They change this machine: no file has them that only lies in the current directory.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperbox.errors import ConfigError
from hyperbox.memory.actuators import LEAST_SWAPPINESS
from hyperbox.memory.decisions import Rules
from hyperbox.memory.tuning import FAST_SWAPS, TunerOptions
from hyperbox.settings import InFile, SettingKind, SettingsTable, add_config, declared

__all__ = ["TUNER", "TunerSettings", "add_options", "options_from"]


def _percent(default: float, text: str) -> Any:
    return declared(default, text, SettingKind.NUMBER, metavar="PERCENT", least=1, most=100)


def _seconds(default: float, text: str, *, most: float, least: float = 1) -> Any:
    return declared(default, text, SettingKind.NUMBER, metavar="S", least=least, most=most)


@dataclass(frozen=True)
class TunerSettings:
    """What a tuner is asked to do."""

    dry_run: bool = declared(False, "decide, and change nothing", SettingKind.FLAG)
    fast_swap: str = declared(
        TunerOptions.fast_swap,
        "compressed swap ahead of need; auto: zswap before a disk, else zram",
        choices=FAST_SWAPS,
    )
    cgroup: Path | None = declared(
        None,
        "judge by this cgroup's pressure instead of the machine's",
        SettingKind.PATH,
        metavar="PATH",
    )
    streaming: tuple[str, ...] = declared(
        (),
        "cgroup whose page cache may be given up; may be repeated",
        SettingKind.LIST,
        metavar="PATH",
    )
    interval: float = _seconds(Rules.interval_s, "seconds between readings", most=300)
    act: float = _percent(Rules.act, "act above this many percent")
    watch_above: float = _percent(Rules.watch, "watch above this, relieve page cache")
    calm_below: float = _percent(Rules.calm, "calm is below this")
    relax: float = _seconds(Rules.relax_s, "seconds of calm before giving back", most=86400)
    settle: float = _seconds(
        Rules.settle_s, "seconds that a step may take to work", least=0, most=600
    )
    measure: float = _seconds(Rules.measure_s, "seconds that a step is measured", most=600)
    backoff: float = _seconds(Rules.backoff_s, "seconds before a failed step again", most=86400)
    zram_mib: int | None = declared(
        None,
        "MiB that zram may hold",
        SettingKind.WHOLE,
        metavar="N",
        least=1,
        most=1 << 24,
        usual="as memory, up to 8192",
    )
    swappiness: int = declared(
        TunerOptions.swappiness,
        f"swappiness with fast swap, never below {LEAST_SWAPPINESS}",
        SettingKind.WHOLE,
        metavar="N",
        least=LEAST_SWAPPINESS,
        most=200,
    )

    def options(self) -> TunerOptions:
        """Return them as the tuner takes them.

        Raises
        ------
        ConfigError
            For a cgroup that is not there, and thresholds that contradict each other.
        """
        return TunerOptions(
            rules=self._rules(),
            group=self.cgroup and _directory(self.cgroup),
            streaming=tuple(_absolute(path, "streaming") for path in map(Path, self.streaming)),
            fast_swap=self.fast_swap,
            zram_mib=self.zram_mib,
            swappiness=self.swappiness,
            dry_run=self.dry_run,
        )

    def _rules(self) -> Rules:
        if not self.calm_below <= self.watch_above <= self.act:
            raise ConfigError(
                f"thresholds out of order: calm {self.calm_below:g}, watch {self.watch_above:g}, "
                f"act {self.act:g}",
                hint="calm-below <= watch-above <= act",
            )
        return Rules(
            interval_s=self.interval,
            act=self.act,
            watch=self.watch_above,
            calm=self.calm_below,
            relax_s=self.relax,
            settle_s=self.settle,
            measure_s=self.measure,
            backoff_s=self.backoff,
        )


TUNER = SettingsTable("tuner", TunerSettings, in_file=InFile.NAMED)

_OBSERVING = ("cgroup", "streaming", "interval")
_ACTING = ("dry-run", "fast-swap", "zram-mib", "swappiness")
_RULES = tuple(
    one.name for one in TUNER.settings if one.name not in ("cgroup", "streaming", *_ACTING)
)


def add_options(
    parser: argparse.ArgumentParser,
    *,
    observing: bool = True,
    rules: bool = True,
    acting: bool = True,
) -> None:
    """Add ``--config`` and the options that have an effect; absent ones stay absent.

    Parameters
    ----------
    observing, rules, acting
        Which settings have an effect: of what is read, of the decisions, of what is changed.
    """
    add_config(parser)
    wanted = ((observing, _OBSERVING), (rules, _RULES), (acting, _ACTING))
    TUNER.add_options(parser, [name for used, names in wanted if used for name in names])


def options_from(
    arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> TunerOptions:
    """Return the options in force.

    Raises
    ------
    ConfigError
        As of `SettingsTable.resolve` and `TunerSettings.options`.
    """
    return TUNER.resolve(arguments, environment).options()


def _directory(path: Path) -> Path:
    if not _absolute(path, "cgroup").is_dir():
        raise ConfigError(f"cgroup: no directory {path}", hint="name a cgroup v2 directory")
    return path


def _absolute(path: Path, name: str) -> Path:
    if not path.is_absolute():
        raise ConfigError(f"{name} cannot be {str(path)!r}", hint="name a path from / on")
    return path
