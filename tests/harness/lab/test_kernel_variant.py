"""Kernels without some of their modules, or with others in their place."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError
from hyperbox.harness.lab.kernel_kit import KernelKit
from hyperbox.harness.lab.kernel_variant import kernel_variant
from hyperbox.harness.lab.session import open_guest
from hyperbox.harness.model import Lane, MachineRequest

pytestmark = pytest.mark.vm

_MARK = b"replaced"
_LOOK = """
modprobe nbd; echo $?
modprobe null_blk; echo $?
cat /sys/module/erofs/taint
tail -c 8 $(modinfo -n erofs)
"""


@pytest.fixture(scope="module")
def modules(kit: KernelKit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel's own modules, unpacked."""
    top = tmp_path_factory.mktemp("modules") / "all"
    assert kit.modules_image is not None
    subprocess.run(["fsck.erofs", f"--extract={top}", kit.modules_image], check=True)
    return top / kit.release


@pytest.fixture
def changed_erofs(modules: Path, tmp_path: Path) -> Path:
    """A directory with an erofs.ko that its signature does not fit any more."""
    (found,) = modules.rglob("erofs.ko")
    (tmp_path / "erofs.ko").write_bytes(found.read_bytes() + _MARK)
    return tmp_path


def test_guests_lack_what_is_withheld_and_have_what_replaces(
    kit: KernelKit, changed_erofs: Path, no_leftovers: None
) -> None:
    wanted = MachineRequest(without_modules=("nbd",), modules=os.fspath(changed_erofs))
    with open_guest(kit, Lane.FAST, wanted=wanted) as machine:
        done = machine.execute(["sh", "-c", _LOOK], timeout=60)
    # "E": unsigned. The root was mounted by the module that replaced the kernel's own.
    assert done.stdout.split() == [b"1", b"0", b"E", _MARK]
    assert b"nbd not found" in done.stderr


def test_without_overlay_the_root_is_a_copy(kit: KernelKit, no_leftovers: None) -> None:
    wanted = MachineRequest(without_modules=("overlay",))
    look = (
        "modprobe overlay; grep -c overlay /proc/filesystems /proc/mounts; touch /etc/new; id -un"
    )
    with open_guest(kit, Lane.FAST, wanted=wanted) as machine:
        done = machine.execute(["sh", "-c", look], timeout=60)
    assert done.stdout.split() == [b"/proc/filesystems:0", b"/proc/mounts:0", b"root"]
    assert b"overlay not found" in done.stderr


def test_a_variant_is_kept_and_made_again_when_it_was_changed(kit: KernelKit) -> None:
    made = kernel_variant(kit, ("nbd",))
    assert made.build != kit.build
    assert made.remarks == (*kit.remarks, "without the module nbd")
    assert made.vmlinuz == kit.vmlinuz
    before = made.initramfs.stat()
    assert kernel_variant(kit, ("nbd", "nbd")).initramfs.stat().st_ino == before.st_ino
    whole = made.initramfs.read_bytes()
    made.initramfs.write_bytes(whole[:-1])
    assert kernel_variant(kit, ("nbd",)).initramfs.read_bytes() == whole
    assert kernel_variant(kit) is kit


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nbdd", "has no module nbdd"),
        ("erofs", "guests do not come up without erofs"),
    ],
)
def test_what_cannot_be_withheld_is_refused(kit: KernelKit, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kernel_variant(kit, (name,))


def test_what_is_built_in_cannot_be_withheld(kit: KernelKit, modules: Path) -> None:
    first = (modules / "modules.builtin").read_text().split()[0]
    with pytest.raises(ConfigError, match="is built into kernel"):
        kernel_variant(kit, (Path(first).stem,))


def test_modules_of_another_kernel_are_refused(
    kit: KernelKit, changed_erofs: Path, tmp_path: Path
) -> None:
    data = (changed_erofs / "erofs.ko").read_bytes()
    other = data.replace(b"vermagic=6", b"vermagic=4")
    (changed_erofs / "erofs.ko").write_bytes(other)
    with pytest.raises(
        ConfigError, match=rf"was built for 4\..*, not for {re.escape(kit.release)}"
    ):
        kernel_variant(kit, (), changed_erofs)
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match=r"has no \.ko files"):
        kernel_variant(kit, (), tmp_path / "none")
