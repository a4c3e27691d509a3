"""What the daemon can be told. Standard library only, so that the command line stays quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyperbox.daemon.listeners import Address
from hyperbox.linux.pressure import PROC_PRESSURE
from hyperbox.memory.psi import HISTORY, INTERVAL_S
from hyperbox.memory.tuning import TunerOptions

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """What the daemon is told.

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
    """

    socket: Path | None = None
    listen: tuple[Address, ...] = ()
    remote: bool = False
    interval_s: float = INTERVAL_S
    history: int = HISTORY
    tuner: TunerOptions | None = None
    pressure: Path = PROC_PRESSURE
