"""Guests for tests that are not about how one is booted: clones of kept snapshots."""

from __future__ import annotations

from collections.abc import Sequence

from hyperbox.harness.lab.guest_image import project_image, root_image
from hyperbox.harness.lab.kernel_kit import KernelKit
from hyperbox.harness.lab.layers import layer_image
from hyperbox.harness.lab.snapshot import Snapshot
from hyperbox.harness.lab.vm_laboratory import hardware_for, warm_snapshot
from hyperbox.harness.model import Lane, MachineRequest


def kept_guest(
    kit: KernelKit, lane: Lane = Lane.EXACT, *, layers: Sequence[str] = (), commandline: str = ""
) -> Snapshot:
    """Return a kernel with the whole project; files and workers share it. Close it after use."""
    images = [layer_image(name) for name in layers]
    wanted = MachineRequest(commandline=commandline)
    hardware = hardware_for(kit, lane, root_image(), project_image(), wanted, images)
    return warm_snapshot(kit, hardware, lambda _text, _fraction: None)
