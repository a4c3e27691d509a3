"""Settings of a validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyperbox.settings import InFile, SettingKind, SettingsTable, declared

__all__ = ["VALIDATE", "Settings"]


@dataclass(frozen=True)
class Settings:
    """What a validation is asked to do."""

    kernel: tuple[str, ...] = declared(
        ("default",),
        "kernel series, set (default, full, all), packaged version such as 6.12.90, path of a "
        "bzImage, or host for the kernel that runs here; may be repeated",
        SettingKind.LIST,
        metavar="KERNEL",
    )
    modules: Path | None = declared(
        None,
        "modules of the bzImage: a lib/modules/RELEASE directory",
        SettingKind.PATH,
        metavar="DIR",
    )
    lane: str = declared(
        "exact",
        "how time passes in the guests: exact counts instructions, fast emulates with the "
        "host's time, real is kvm where it works and else fast, auto is kvm and else exact",
        choices=("exact", "fast", "kvm", "real", "auto"),
    )
    beside: str = declared(
        "none",
        "a second lane, measured and reported beside the deciding one: real shows what the "
        "host's time says of work that the exact lane counted",
        choices=("none", "exact", "fast", "kvm", "real"),
    )
    target: str = declared(
        "vm",
        "measure in virtual machines or on this machine",
        choices=("vm", "host"),
        in_file=InFile.NAMED,
    )
    allow_host_changes: bool = declared(
        False,
        "let experiments change settings of this machine",
        SettingKind.FLAG,
        in_file=InFile.NONE,
    )
    blocks: int | None = declared(
        None,
        "blocks per experiment instead of the declared number",
        SettingKind.WHOLE,
        metavar="N",
        least=1,
    )
    seed: int = declared(
        1, "seed of order and perturbation", SettingKind.WHOLE, metavar="N", least=0
    )
    jobs: int | None = declared(
        None,
        "cells measured at once",
        SettingKind.WHOLE,
        metavar="N",
        least=1,
        usual="one per processor",
    )
    run_directory: Path | None = declared(
        None, "where the run is kept", SettingKind.PATH, metavar="DIR", usual="runs/<UTC time>"
    )
    resume: Path | None = declared(
        None,
        "go on with the run in DIR, as it was planned",
        SettingKind.PATH,
        metavar="DIR",
        in_file=InFile.NONE,
    )
    suites: Path | None = declared(
        None,
        "directory with suites of your own (host target only)",
        SettingKind.PATH,
        metavar="DIR",
        in_file=InFile.NAMED,
    )
    strict: bool = declared(False, "exit 2 if a gate is inconclusive", SettingKind.FLAG)


VALIDATE = SettingsTable("validate", Settings, prefix="HYPERBOX_")
