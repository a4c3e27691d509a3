"""The one place that knows the rooms by name.

A new feature joins here: make its room from the options, and add it to the tuple.
"""

from __future__ import annotations

from hyperbox.daemon.options import Options
from hyperbox.daemon.room import Room
from hyperbox.daemon.rooms.pressure import PressureRoom
from hyperbox.daemon.rooms.tuner import TunerListener

__all__ = ["rooms"]


def rooms(options: Options) -> tuple[Room, ...]:
    """Give every room there is, in the order in which they start."""
    return (_pressure(options),)


def _pressure(options: Options) -> Room:
    tuner = options.tuner
    return PressureRoom(
        options.pressure,
        interval_s=options.interval_s,
        history=options.history,
        listener=None if tuner is None else lambda: TunerListener(tuner),
    )
