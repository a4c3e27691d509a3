from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import MissingDependency
from hyperbox.harness.lab import kernel_kit as kits
from hyperbox.harness.lab.guest_image import project_image, root_image
from hyperbox.harness.lab.host_kernel import running_kernel
from hyperbox.harness.lab.kernel_kit import KernelKit
from hyperbox.paths import cache_directory
from hyperbox.processes import require, run

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


def _installed(kit: KernelKit, root: Path) -> None:
    """Lay a kernel out as its package does when it is installed."""
    (root / "boot").mkdir(parents=True)
    shutil.copy(kit.vmlinuz, root / f"boot/vmlinuz-{kit.release}")
    shutil.copy(kit.config, root / f"boot/config-{kit.release}")
    modules = root / "usr/lib/modules"
    modules.mkdir(parents=True)
    extract = require("fsck.erofs", "erofs-utils")
    run([extract, f"--extract={modules}", "--overwrite", str(kit.modules_image)], timeout=120)


@pytest.mark.vm
def test_the_kernel_that_this_machine_runs_boots_with_its_modules(
    kit: KernelKit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "root"
    _installed(kit, root)
    root_image(), project_image()
    (tmp_path / "cache").mkdir()  # what is built of it does not stay
    (tmp_path / "cache/guest").symlink_to(cache_directory() / "guest")
    monkeypatch.setenv("HYPERBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kits, "running_kernel", lambda: running_kernel(root, kit.release))
    look = "uname -r; modprobe zram && grep -c ^zram /proc/modules; ls /sys/block | grep zram"
    assert main(["exec", "--kernel", "host", "--", "sh", "-c", look]) == 0
    assert capfd.readouterr().out.split() == [kit.release, "1", "zram0"]
