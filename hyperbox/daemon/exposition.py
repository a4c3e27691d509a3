"""``/metrics``: the services' metric families for Prometheus, in the format that it asks for.

prometheus_client writes them: the text formats 0.0.4 and 1.0.0 and, where the client asks for
it, OpenMetrics 1.0. Families are made at each scrape from the services' state of that moment;
nothing is kept between scrapes.

``promtool check metrics`` reads the text format only, up to Prometheus 3 (it parses with
expfmt.TextParser and stops at OpenMetrics' type ``info``); the reader of OpenMetrics in the same
program, ``promtool tsdb create-blocks-from openmetrics``, takes what is written here.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest as written_as_text
from prometheus_client.openmetrics.exposition import generate_latest as written_as_openmetrics
from prometheus_client.registry import Collector

import hyperbox
from hyperbox.daemon.negotiation import OPENMETRICS, TEXT, negotiated
from hyperbox.daemon.service import ServiceState
from hyperbox.daemon.service_group import ServiceGroup

__all__ = ["CONTENT_TYPES", "Exposition"]

CONTENT_TYPES = (TEXT, OPENMETRICS)


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
            up.add_metric([service.name], float(service.status().state is ServiceState.RUNNING))
            yield from service.metrics()
        yield up
        yield from self._process.collect()

    def encoded(self, accept: str) -> tuple[bytes, str]:
        """Return the body and its media type for a request's Accept header."""
        chosen = negotiated(accept)
        escaping = chosen.escaping or "underscores"
        if chosen.media == OPENMETRICS:
            body: bytes = written_as_openmetrics(  # type: ignore[no-untyped-call]
                self, escaping, chosen.version
            )
        else:
            body = written_as_text(self, escaping)
        return body, str(chosen)


def _version() -> dict[str, str]:
    return {"version": hyperbox.__version__}
