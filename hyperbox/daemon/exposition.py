"""``/metrics``: the services' metric families for Prometheus, in the format that it asks for.

prometheus_client writes both: the text format 0.0.4 and, where the client accepts it,
OpenMetrics 1.0. Families are made at each scrape from the services' state of that moment;
nothing is kept between scrapes.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import hyperbox
from hyperbox.daemon.service import State
from hyperbox.daemon.service_group import ServiceGroup

__all__ = ["CONTENT_TYPES", "Exposition"]

CONTENT_TYPES = ("text/plain", "application/openmetrics-text")


class Exposition(Collector):
    """All metric families of a group, and of the daemon's own process."""

    def __init__(self, group: ServiceGroup) -> None:
        self._group = group
        self._process = ProcessCollector(registry=CollectorRegistry(auto_describe=False))

    def collect(self) -> Iterable[Metric]:
        """Return every family now; a service that cannot give some gives none."""
        yield InfoMetricFamily("hyperbox_build", "Version of hyperbox.", _version())
        up = GaugeMetricFamily(
            "hyperbox_service_up",
            "1 for a service of the daemon that runs, 0 for one that is unavailable or has failed.",
            labels=["service"],
        )
        for service in self._group.services:
            up.add_metric([service.name], float(service.status().state is State.RUNNING))
            yield from service.metrics()
        yield up
        yield from self._process.collect()

    def encoded(self, accept: str) -> tuple[bytes, str]:
        """Return the body and its media type for a request's Accept header."""
        encode, media_type = choose_encoder(accept)
        return encode(self), media_type


def _version() -> dict[str, str]:
    return {"version": hyperbox.__version__}
