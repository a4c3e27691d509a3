"""The one place that knows the rooms by name.

A new feature joins here: make its room from the options, and add it to the tuple.
"""

from __future__ import annotations

from hyperbox.daemon.options import Options
from hyperbox.daemon.room import Room
from hyperbox.daemon.rooms.pressure import PressureRoom

__all__ = ["rooms"]


def rooms(options: Options) -> tuple[Room, ...]:
    """Give every room there is, in the order in which they start."""
    return (PressureRoom(options.pressure, interval_s=options.interval_s, history=options.history),)
