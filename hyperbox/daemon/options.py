"""The daemon's settings, and what they come to. Standard library only: help stays quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyperbox.daemon.listeners import Address
from hyperbox.linux.pressure import PROC_PRESSURE
from hyperbox.memory.psi import HISTORY, INTERVAL_S
from hyperbox.memory.tuning import TunerOptions
from hyperbox.observability.export_target import ExportTarget
from hyperbox.observability.governor import BUDGET
from hyperbox.settings import InFile, SettingKind, SettingsTable, declared

__all__ = ["DAEMON", "IMAGES_SOCKET", "DaemonOptions", "DaemonSettings", "Traced"]


@dataclass(frozen=True)
class DaemonSettings:
    """What a daemon is asked to do; where it listens is said by nobody else's file."""

    socket: str | None = declared(
        None,
        "unix socket, or 'none'",
        metavar="PATH",
        usual="hyperbox.sock below /run/hyperbox, or below the user's runtime directory",
    )
    listen: tuple[str, ...] = declared(
        ("127.0.0.1:9797",),
        "TCP address, or 'none'; may be repeated",
        SettingKind.LIST,
        metavar="IP:PORT",
    )
    allow_remote: bool = declared(
        False,
        "allow addresses to listen on that other machines reach; there is no authentication",
        SettingKind.FLAG,
    )
    tune: bool = declared(
        False,
        "tune swapping at each sample, as `psi tune` does",
        SettingKind.FLAG,
    )
    interval: float | None = declared(
        None,
        "seconds between samples",
        SettingKind.NUMBER,
        metavar="S",
        least=0.01,
        most=86400.0,
        usual=f"{INTERVAL_S:g}, or the tuner's",
    )
    trace: bool = declared(
        False,
        "trace system calls: serve spans below /traces, and send them to the collector that "
        "OTEL_EXPORTER_OTLP_ENDPOINT names (default: localhost:4317)",
        SettingKind.FLAG,
    )
    trace_cgroup: str | None = declared(
        None,
        "trace the processes of this cgroup (v2) only",
        metavar="PATH",
    )
    trace_budget: float = declared(
        100 * BUDGET,
        "what tracing may take of the CPU time before it looks at less",
        SettingKind.NUMBER,
        metavar="PERCENT",
        least=0.01,
        most=100.0,
        usual=f"{100 * BUDGET:g}",
    )
    grpc: tuple[str, ...] = declared(
        (),
        "serve traces over gRPC, too: TCP address or path of a unix socket; may be repeated",
        SettingKind.LIST,
        metavar="IP:PORT|PATH",
    )
    lazy_images: bool = declared(
        False,
        "serve images that are mounted before they are here, by a process that outlives this one",
        SettingKind.FLAG,
    )
    verbose: bool = declared(False, "log what is of use for finding a fault", SettingKind.FLAG)


IMAGES_SOCKET = Path("/run/hyperbox-images/images.sock")
"""Where the images service of the machine serves."""

DAEMON = SettingsTable("daemon", DaemonSettings, in_file=InFile.NAMED)


@dataclass(frozen=True)
class Traced:
    """What is traced, and where spans are sent to.

    Parameters
    ----------
    cgroup
        A directory of cgroup v2; None traces the machine.
    target
        The collector; None if spans are only served.
    grpc
        Where they are served over gRPC.
    budget
        What tracing may take of the CPU time, from 0 to 1.
    """

    cgroup: Path | None
    target: ExportTarget | None
    grpc: tuple[Address | Path, ...] = ()
    budget: float = BUDGET


@dataclass(frozen=True)
class DaemonOptions:
    """What the daemon is asked to do.

    Parameters
    ----------
    socket
        Path of the unix socket; None for none.
    listen
        TCP addresses.
    remote
        Whether `listen` may name addresses that other machines reach.
    interval_s, history
        Seconds between samples of pressure, and how many are kept.
    tuner
        How to tune at each sample; None tunes not at all.
    pressure
        Where the pressure files are.
    traced
        What is traced; None traces nothing.
    lazy_images
        Where the images service serves; None for none.
    """

    socket: Path | None = None
    listen: tuple[Address, ...] = ()
    remote: bool = False
    interval_s: float = INTERVAL_S
    history: int = HISTORY
    tuner: TunerOptions | None = None
    pressure: Path = PROC_PRESSURE
    traced: Traced | None = None
    lazy_images: Path | None = None
