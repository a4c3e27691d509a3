"""Pressure as metric families. Pure.

The counters bear the names, and the help, of Prometheus's node_exporter (its collector
``pressure``, 1.9), so that dashboards and alerts made for it work: ``waiting`` is the
kernel's `some`, ``stalled`` its `full`. Like there, `full` of cpu is left out (the kernel
always says 0 for the whole machine), and irq has only ``stalled``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from hyperbox.daemon.services.pressure_answer import Sampling
from hyperbox.linux.pressure import Resource, StallKind
from hyperbox.memory.psi import PressureHistory, PressureSample

__all__ = ["families"]

_COUNTERS: Mapping[tuple[Resource, StallKind], tuple[str, str]] = {
    (Resource.CPU, StallKind.SOME): (
        "node_pressure_cpu_waiting_seconds",
        "Total time in seconds that processes have waited for CPU time",
    ),
    (Resource.IO, StallKind.SOME): (
        "node_pressure_io_waiting_seconds",
        "Total time in seconds that processes have waited due to IO congestion",
    ),
    (Resource.IO, StallKind.FULL): (
        "node_pressure_io_stalled_seconds",
        "Total time in seconds no process could make progress due to IO congestion",
    ),
    (Resource.MEMORY, StallKind.SOME): (
        "node_pressure_memory_waiting_seconds",
        "Total time in seconds that processes have waited for memory",
    ),
    (Resource.MEMORY, StallKind.FULL): (
        "node_pressure_memory_stalled_seconds",
        "Total time in seconds no process could make progress due to memory congestion",
    ),
    (Resource.IRQ, StallKind.FULL): (
        "node_pressure_irq_stalled_seconds",
        "Total time in seconds no process could make progress due to IRQ congestion",
    ),
}


def families(
    now: PressureSample, snapshot: PressureHistory, sampling: Sampling
) -> Iterable[Metric]:
    """Return the families of a reading, of the last samples, and of the sampler itself."""
    lines = now.lines()
    for key, (name, documentation) in _COUNTERS.items():
        if key in lines:
            seconds = lines[key].total_us / 1e6
            yield CounterMetricFamily(name, documentation, value=seconds, unit="seconds")
    window = GaugeMetricFamily(
        "hyperbox_pressure_window_ratio",
        "Share of the last 10 s before the newest sample that was stall.",
        labels=["resource", "kind"],
        unit="ratio",
    )
    kernel = GaugeMetricFamily(
        "hyperbox_pressure_kernel_avg10_ratio",
        "The kernel's exponential average over about 10 s.",
        labels=["resource", "kind"],
        unit="ratio",
    )
    for (resource, kind), line in lines.items():
        kernel.add_metric([resource, kind], line.avg10 / 100)
        average = snapshot.boxcar(resource, kind)
        if average is not None:
            window.add_metric([resource, kind], average.percent / 100)
    yield from (family for family in (window, kernel) if family.samples)
    yield CounterMetricFamily(
        "hyperbox_pressure_samples", "Samples of pressure taken.", value=sampling.taken
    )
    yield CounterMetricFamily(
        "hyperbox_pressure_sampling_cpu_seconds",
        "CPU time of the thread that samples pressure, tuner included.",
        value=sampling.cpu_s,
        unit="seconds",
    )
