"""Loop devices on the machine's own kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyperbox.errors import KernelFeatureMissing, WorkloadError
from hyperbox.linux.loop import attach_loop, change_loop_file

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


def test_file_changes_below_a_device_that_is_open(tmp_path: Path) -> None:
    contents = [os.urandom(1 << 16), os.urandom(1 << 16), bytes(1 << 15)]
    handles = []
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
        handles.append(os.open(tmp_path / str(number), os.O_RDONLY))
    try:
        device, held = attach_loop(handles[0])
    except KernelFeatureMissing as missing:
        pytest.skip(missing.message)
    handles.append(held)
    try:
        change_loop_file(device, handles[1])
        os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(held, 1 << 16, 0) == contents[1]
        with pytest.raises(WorkloadError):  # of another size
            change_loop_file(device, handles[2])
    finally:
        for one in handles:
            os.close(one)
