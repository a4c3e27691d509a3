"""The one place that knows the services by name.

A new feature joins here: make its service from the options, and add it to the tuple.
"""

from __future__ import annotations

from collections.abc import Callable

from hyperbox.daemon.options import DaemonOptions
from hyperbox.daemon.process_service import ProcessService
from hyperbox.daemon.service import Service, Status
from hyperbox.daemon.services.pressure import PressureService
from hyperbox.daemon.services.traces import GrpcFace, TracesService
from hyperbox.daemon.services.traces_stream import Readers
from hyperbox.daemon.services.tuner import TunerListener
from hyperbox.observability.span_store import SpanStore

__all__ = ["services"]

_IMAGES = "hyperbox.daemon.services.images:ImagesService"


def services(options: DaemonOptions) -> tuple[Service, ...]:
    """Return every service there is, in the order in which they start."""
    if options.lazy_images is None:
        return (_pressure(options), _traces(options))
    # It needs root's privileges and holds what mounted images are read through.
    images = ProcessService(_IMAGES, options.lazy_images, outlives=True)
    return (_pressure(options), _traces(options), images)


def _traces(options: DaemonOptions) -> Service:
    traced = options.traced
    if traced is None:
        return TracesService()
    # What the extra `tracing` brings is needed for tracing only.
    from hyperbox.daemon.services.tracer_source import TracerSource  # noqa: PLC0415
    from hyperbox.observability.exporter import exporter_to  # noqa: PLC0415
    from hyperbox.observability.instrument import Filter, Scope  # noqa: PLC0415

    to, cgroup = traced.target, traced.cgroup
    scope = Scope(Filter.ALL) if cgroup is None else Scope(Filter.CGROUP, cgroup)
    exporter = None if to is None else lambda: exporter_to(to)
    return TracesService(
        TracerSource(scope, budget=traced.budget), exporter=exporter, grpc=_grpc(options)
    )


def _grpc(
    options: DaemonOptions,
) -> Callable[[SpanStore, Readers, Callable[[], Status]], GrpcFace] | None:
    """Return what makes the gRPC face; its packages are imported where it is wanted only."""
    places = options.traced.grpc if options.traced is not None else ()
    if not places:
        return None
    from hyperbox.daemon.services.traces_grpc import GrpcTraces  # noqa: PLC0415

    return lambda store, readers, status: GrpcTraces(
        places, store=store, readers=readers, status=status, remote=options.remote
    )


def _pressure(options: DaemonOptions) -> Service:
    tuner = options.tuner
    return PressureService(
        options.pressure,
        interval_s=options.interval_s,
        history=options.history,
        listener=None if tuner is None else lambda: TunerListener(tuner),
    )
