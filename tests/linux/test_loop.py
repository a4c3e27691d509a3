"""Loop devices on the machine's own kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyperbox.errors import KernelFeatureMissing
from hyperbox.linux.loop import attach_loop

pytestmark = pytest.mark.root


def test_device_has_the_file_and_goes_with_its_last_use(tmp_path: Path) -> None:
    content = os.urandom(1 << 16)
    backing = tmp_path / "image"
    backing.write_bytes(content)
    handle = os.open(backing, os.O_RDONLY)
    try:
        device, held = attach_loop(handle, "an image")
    except KernelFeatureMissing as missing:
        pytest.skip(missing.message)
    finally:
        os.close(handle)
    state = Path("/sys/block", device.name, "loop")
    try:
        assert (state / "backing_file").read_text().strip() == str(backing)
        assert (state / "autoclear").read_text().strip() == "1"
        assert os.pread(held, len(content), 0) == content
    finally:
        os.close(held)
    assert not (state / "backing_file").exists()


def test_two_devices_are_two(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(1 << 16))
    handle = os.open(tmp_path / "image", os.O_RDONLY)
    held = []
    try:
        held = [attach_loop(handle) for _ in range(3)]
        assert len({device for device, _ in held}) == 3
    except KernelFeatureMissing as missing:
        pytest.skip(missing.message)
    finally:
        for one in (handle, *(device for _, device in held)):
            os.close(one)
