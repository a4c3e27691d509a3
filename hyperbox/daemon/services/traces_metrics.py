"""Metric families of the traces service: what was kept, exported and lost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from hyperbox.observability.exporter import ExportReport
from hyperbox.observability.span_store import StoreReport

__all__ = ["families"]


def families(
    store: StoreReport,
    export: ExportReport | None,
    lost: Mapping[str, int],
    *,
    readers: int,
    dropped_readers: int,
) -> Iterable[Metric]:
    """Return the families of a moment."""
    yield CounterMetricFamily(
        "hyperbox_traces_spans", "Spans that were made since the start.", value=store.added
    )
    yield CounterMetricFamily(
        "hyperbox_traces_evicted_spans",
        "Spans that are no longer kept, because newer ones took their place.",
        value=store.evicted,
    )
    yield GaugeMetricFamily("hyperbox_traces_kept_spans", "Spans that are kept.", value=store.spans)
    yield GaugeMetricFamily(
        "hyperbox_traces_kept_bytes", "Memory of the spans that are kept.", value=store.bytes
    )
    losses = CounterMetricFamily(
        "hyperbox_traces_lost", "Calls and spans that were lost, by cause.", labels=["cause"]
    )
    for cause, count in sorted(lost.items()):
        losses.add_metric([cause], count)
    yield losses
    yield GaugeMetricFamily("hyperbox_traces_readers", "Streams that are open.", value=readers)
    yield CounterMetricFamily(
        "hyperbox_traces_dropped_readers",
        "Streams that were ended because their reader was too slow.",
        value=dropped_readers,
    )
    if export is None:
        return
    yield CounterMetricFamily(
        "hyperbox_traces_exported_spans", "Spans that the collector took.", value=export.exported
    )
    yield CounterMetricFamily(
        "hyperbox_traces_export_requests", "Requests to the collector.", value=export.requests
    )
    yield CounterMetricFamily(
        "hyperbox_traces_export_retries",
        "Requests that the collector wanted again later, or that did not reach it.",
        value=export.retries,
    )
    yield GaugeMetricFamily(
        "hyperbox_traces_export_waiting_bytes",
        "Spans that wait for the collector.",
        value=export.waiting_bytes,
    )
