from __future__ import annotations

from pathlib import Path

import pytest

from hyperbox.errors import MissingDependency
from hyperbox.harness.lab.host_kernel import running_kernel

RELEASE = "6.12.1-generic"


@pytest.mark.parametrize("place", [f"boot/vmlinuz-{RELEASE}", f"usr/lib/modules/{RELEASE}/vmlinuz"])
def test_image_and_modules_are_found(tmp_path: Path, place: str) -> None:
    image = tmp_path / place
    image.parent.mkdir(parents=True)
    image.write_bytes(b"kernel")
    modules = tmp_path / "usr/lib/modules" / RELEASE
    modules.mkdir(parents=True, exist_ok=True)
    assert running_kernel(tmp_path, RELEASE) == (image, modules)


def test_a_kernel_may_have_no_modules(tmp_path: Path) -> None:
    image = tmp_path / f"boot/vmlinuz-{RELEASE}"
    image.parent.mkdir()
    image.write_bytes(b"kernel")
    assert running_kernel(tmp_path, RELEASE) == (image, None)


def test_a_machine_without_its_kernels_image_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match=RELEASE) as caught:
        running_kernel(tmp_path, RELEASE)
    assert "container" in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
