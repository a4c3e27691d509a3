"""The one place that knows the services by name.

A new feature joins here: make its service from the options, and add it to the tuple.
"""

from __future__ import annotations

from hyperbox.daemon.options import Options
from hyperbox.daemon.service import Service
from hyperbox.daemon.services.pressure import PressureService
from hyperbox.daemon.services.tuner import TunerListener

__all__ = ["services"]


def services(options: Options) -> tuple[Service, ...]:
    """Return every service there is, in the order in which they start."""
    return (_pressure(options),)


def _pressure(options: Options) -> Service:
    tuner = options.tuner
    return PressureService(
        options.pressure,
        interval_s=options.interval_s,
        history=options.history,
        listener=None if tuner is None else lambda: TunerListener(tuner),
    )
