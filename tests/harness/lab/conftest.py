"""One booted kernel, shared by the tests that need a guest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from hyperbox.harness.lab.guest_image import project_image, root_image
from hyperbox.harness.lab.kernel_kit import KernelKit, kernel_kit
from hyperbox.harness.lab.qemu import GuestHardware
from hyperbox.harness.lab.snapshot import Snapshot
from hyperbox.harness.lab.vm_laboratory import hardware_for, warm_snapshot
from hyperbox.harness.model import Lane


@pytest.fixture(scope="session")
def kit() -> KernelKit:
    return kernel_kit("6.12")


@pytest.fixture(scope="session")
def hardware(kit: KernelKit, tmp_path_factory: pytest.TempPathFactory) -> GuestHardware:
    """The guest's hardware; its images lie where QEMU's options would break unless quoted."""
    found = hardware_for(kit, Lane.EXACT, root_image(), project_image())
    odd = tmp_path_factory.mktemp("images") / 'size=1,share=off, "it\'s"'
    odd.mkdir()
    for image in found.images:
        (odd / image.name).symlink_to(image)
    return replace(found, images=tuple(odd / image.name for image in found.images))


@pytest.fixture(scope="session")
def snapshot(kit: KernelKit, hardware: GuestHardware) -> Iterator[Snapshot]:
    made = warm_snapshot(kit, hardware, lambda _text, _fraction: None)
    with contextlib.closing(made):
        yield made
