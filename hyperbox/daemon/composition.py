"""The one place that knows the services by name.

A new feature joins here: make its service from the options, and add it to the tuple.
"""

from __future__ import annotations

from hyperbox.daemon.options import Options
from hyperbox.daemon.process_service import ProcessService
from hyperbox.daemon.service import Service
from hyperbox.daemon.services.pressure import PressureService
from hyperbox.daemon.services.tuner import TunerListener

__all__ = ["services"]

_IMAGES = "hyperbox.daemon.services.images:ImagesService"


def services(options: Options) -> tuple[Service, ...]:
    """Return every service there is, in the order in which they start."""
    if options.lazy_images is None:
        return (_pressure(options),)
    # It needs root's privileges and holds what mounted images are read through.
    images = ProcessService(_IMAGES, options.lazy_images, outlives=True)
    return (_pressure(options), images)


def _pressure(options: Options) -> Service:
    tuner = options.tuner
    return PressureService(
        options.pressure,
        interval_s=options.interval_s,
        history=options.history,
        listener=None if tuner is None else lambda: TunerListener(tuner),
    )
