"""What a guest costs: CPU until its agent is ready, and the agent's latency."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator, Sequence

from hyperbox.harness.lab.guest_image import project_image, root_image
from hyperbox.harness.lab.kernel_kit import kernel_kit
from hyperbox.harness.lab.layers import layer_image
from hyperbox.harness.lab.nameless import in_memory
from hyperbox.harness.lab.qemu import find_qemu
from hyperbox.harness.lab.vm import VirtualMachine
from hyperbox.harness.lab.vm_laboratory import hardware_for
from hyperbox.harness.model import Lane

_BOOTS = 3
_LAYERS = ("bpf", "daemon", "redis")
_PINGS = 500
_WARM_UP_PINGS = 20


@contextlib.contextmanager
def _booted(kernel: str, lane: Lane, layers: Sequence[str] = ()) -> Iterator[VirtualMachine]:
    """Return a guest whose agent is ready; fetches and builds what the cache lacks."""
    kit, images = kernel_kit(kernel), [layer_image(name) for name in layers]
    hardware = hardware_for(kit, lane, root_image(), project_image(), layers=images)
    with (
        in_memory("ram") as ram,
        VirtualMachine(find_qemu(), hardware, ram=ram, shared=True) as machine,
    ):
        machine.wait_ready()
        yield machine


class Boot:
    """CPU seconds of QEMU, user and system, from its start to the agent's first frame."""

    params = ("5.10", "6.12", "7.3")
    param_names = ("kernel",)
    timeout = 1200
    unit = "CPU seconds"

    def setup(self, kernel: str) -> None:
        """Fill the caches, so that nothing is built while it is measured."""
        kernel_kit(kernel)
        root_image()
        project_image()
        for name in _LAYERS:
            layer_image(name)

    def track_fast_lane(self, kernel: str) -> float:
        """Median of a few boots; the target is at most 9 s."""
        return statistics.median(self._boot(kernel) for _ in range(_BOOTS))

    def track_with_three_layers(self, kernel: str) -> float:
        """Return the same of a guest with layers; the target is at most 1 s more."""
        return statistics.median(self._boot(kernel, _LAYERS) for _ in range(_BOOTS))

    @staticmethod
    def _boot(kernel: str, layers: Sequence[str] = ()) -> float:
        with _booted(kernel, Lane.FAST, layers) as machine:
            return machine.cpu_seconds


class AgentInGuest:
    """Latency of the agent in a guest that does nothing else."""

    params = ("5.10", "6.12", "7.3")
    param_names = ("kernel",)
    timeout = 1200
    unit = "ms"

    def track_ping_median(self, kernel: str) -> float:
        """Milliseconds from question to answer; the target is less than 2."""
        with _booted(kernel, Lane.FAST) as machine:
            for _ in range(_WARM_UP_PINGS):
                machine.ping()
            return statistics.median(_ping(machine) for _ in range(_PINGS))


def _ping(machine: VirtualMachine) -> float:
    before = time.perf_counter_ns()
    machine.ping()
    return (time.perf_counter_ns() - before) / 1e6
