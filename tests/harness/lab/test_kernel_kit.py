from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.files import sha256_file, write_json, write_sealed
from hyperbox.harness.lab import kernel_kit as module
from hyperbox.harness.lab.debian_archive import HashMismatch, MirrorSilent
from hyperbox.harness.lab.host_kernel import running_kernel
from hyperbox.harness.lab.initramfs import load_order
from hyperbox.harness.lab.kernel_kit import KernelKit, cached_kits, kernel_kit, kernels_directory
from hyperbox.harness.lab.kernel_lock import read_lock
from hyperbox.harness.lab.kernel_matrix import KernelRelease, Package, lock_document

NOBODY = "http://127.0.0.1:9/debian"  # port 9: nothing listens
SERIES = "6.12"


@dataclass(frozen=True)
class SmallKernel:
    """A mirror on disk with one deb: a real Debian kernel with few of its modules."""

    mirror: str
    release: KernelRelease
    deb: Path
    tree: Path


@pytest.fixture(scope="session")
def small_kernel(tmp_path_factory: pytest.TempPathFactory) -> SmallKernel:
    kernel_kit(SERIES)
    (package,) = read_lock()[SERIES].packages
    original = kernels_directory() / "debs" / f"{package.sha256}.deb"
    root = tmp_path_factory.mktemp("mirror")
    tree = root / "tree"
    subprocess.run(["dpkg-deb", "-R", original, tree], check=True)
    release = read_lock()[SERIES].release
    own = tree / "usr/lib/modules" / release
    depends = subprocess.run(
        ["depmod", "-n", "-b", tree / "usr", release], check=True, capture_output=True, text=True
    ).stdout.partition("\n# ")[0]
    order, _ = load_order(depends, "")
    assert order
    for path in own.rglob("*.ko.xz"):
        if path.relative_to(own).as_posix() not in order:
            path.unlink()
    deb = root / "debian/pool/small.deb"
    deb.parent.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", tree, deb], check=True)
    small = replace(
        package, sha256=sha256_file(deb), size=deb.stat().st_size, filename="pool/small.deb",
        suite="trixie",
    )  # fmt: skip
    pinned = replace(read_lock()[SERIES], packages=(small,))
    return SmallKernel(f"file://{root}/debian", pinned, deb, tree)


@pytest.fixture
def kernel(
    small_kernel: SmallKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SmallKernel:
    """The small kernel locked, its own mirror (a copy), an empty cache."""
    mirror = tmp_path / "mirror"
    (mirror / "pool").mkdir(parents=True)
    deb = mirror / "pool/small.deb"
    shutil.copyfile(small_kernel.deb, deb)
    monkeypatch.setenv("HYPERBOX_CACHE", str(tmp_path / "cache"))
    lock(monkeypatch, tmp_path, {SERIES: small_kernel.release})
    return replace(small_kernel, mirror=f"file://{mirror}", deb=deb)


def lock(
    monkeypatch: pytest.MonkeyPatch, directory: Path, locked: dict[str, KernelRelease]
) -> None:
    path = directory / "lock.json"
    write_json(path, lock_document(locked))
    monkeypatch.setattr("hyperbox.harness.lab.kernel_lock.lock_path", lambda: path)


def contents(kit: KernelKit) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in kit.vmlinuz.parent.iterdir()}


def leftovers() -> list[str]:
    """Return what is in the cache that is neither a lock nor apt's own."""
    return sorted(
        path.relative_to(kernels_directory()).as_posix()
        for path in kernels_directory().glob("*/*")
        if not path.name.endswith(".lock") and path.parent.name != "apt"
    )


def test_kit_has_all_that_a_guest_needs(kernel: SmallKernel, tmp_path: Path) -> None:
    steps: list[tuple[str, float]] = []
    kit = kernel_kit(
        SERIES, mirror=kernel.mirror, progress=lambda text, done: steps.append((text, done))
    )
    assert (kit.label, kit.release, kit.version) == (
        SERIES, kernel.release.release, kernel.release.version,
    )  # fmt: skip
    assert kit.sha256 == kernel.release.packages[0].sha256
    assert kit.remarks == ()
    assert [done for _, done in steps] == sorted(done for _, done in steps)
    assert steps[-1][1] == 1.0
    assert "CONFIG_64BIT=y" in kit.config.read_text()
    assert kit.vmlinuz.read_bytes()[0x202:0x206] == b"HdrS"

    listing = subprocess.run(
        ["cpio", "-t", "--quiet"], input=kit.initramfs.read_bytes(), capture_output=True, check=True
    ).stdout.decode()
    assert {"init", "bin/busybox", "modules/erofs.ko", "modules/nd_pmem.ko"} <= set(listing.split())

    assert kit.modules_image is not None
    assert kit.modules_image.stat().st_size % (2 << 20) == 0
    unpacked = tmp_path / "unpacked"
    command = ["fsck.erofs", f"--extract={unpacked}", str(kit.modules_image)]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in unpacked.iterdir()} == {kit.release, ".hyperbox-image"}
    assert (unpacked / kit.release / "modules.dep.bin").exists()
    modules = list(unpacked.rglob("*.ko*"))
    assert modules
    assert all(path.suffix == ".ko" and path.read_bytes()[:4] == b"\x7fELF" for path in modules)
    assert not list(unpacked.rglob("vmlinuz"))


def test_same_inputs_give_same_bytes(
    kernel: SmallKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = contents(kernel_kit(SERIES, mirror=kernel.mirror))
    monkeypatch.setenv("HYPERBOX_CACHE", str(tmp_path / "another cache"))
    before = os.umask(0o077)
    try:
        second = contents(kernel_kit(SERIES, mirror=kernel.mirror))
    finally:
        os.umask(before)
    assert first == second


def test_cached_kit_needs_no_mirror(kernel: SmallKernel) -> None:
    kit = kernel_kit(SERIES, mirror=kernel.mirror)
    assert kernel_kit(SERIES, mirror=NOBODY) == kit
    assert cached_kits(SERIES) == (kit,)


def test_cached_package_needs_no_mirror(kernel: SmallKernel) -> None:
    kit = kernel_kit(SERIES, mirror=kernel.mirror)
    shutil.rmtree(kit.vmlinuz.parent)
    assert kernel_kit(SERIES, mirror=NOBODY) == kit


def test_silent_mirror_without_cache_is_one_clear_line(kernel: SmallKernel) -> None:
    with pytest.raises(MirrorSilent, match="does not answer") as caught:
        kernel_kit(SERIES, mirror=NOBODY)
    assert "\n" not in caught.value.message
    assert leftovers() == []


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_damaged_kit_is_built_again_and_said(kernel: SmallKernel, damage: str) -> None:
    kit = kernel_kit(SERIES, mirror=kernel.mirror)
    whole = contents(kit)
    for name in ("vmlinuz", "initramfs.cpio", "modules.erofs", "config", "manifest.json"):
        path = kit.vmlinuz.with_name(name)
        if damage == "cut":
            os.truncate(path, path.stat().st_size // 2)
        elif damage == "flip":
            flip_byte(path)
        else:
            path.unlink()
        again = kernel_kit(SERIES, mirror=NOBODY)
        assert again.remarks == ("the cached kit was corrupted; built again",), name
        assert contents(again) == whole, name
        assert kernel_kit(SERIES, mirror=NOBODY).remarks == ()


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_package_is_fetched_again_and_said(kernel: SmallKernel, damage: str) -> None:
    kit = kernel_kit(SERIES, mirror=kernel.mirror)
    shutil.rmtree(kit.vmlinuz.parent)
    deb = kernels_directory() / "debs" / f"{kit.sha256}.deb"
    if damage == "cut":
        os.truncate(deb, deb.stat().st_size // 2)
    else:
        flip_byte(deb)
    again = kernel_kit(SERIES, mirror=kernel.mirror)
    assert "was corrupted; fetched again" in again.remarks[0]


def test_another_file_on_the_mirror_is_refused(kernel: SmallKernel) -> None:
    flip_byte(kernel.deb)
    with pytest.raises(HashMismatch):
        kernel_kit(SERIES, mirror=kernel.mirror)
    assert leftovers() == []


def test_package_that_is_no_deb_is_refused_and_nothing_stays(
    kernel: SmallKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.deb.write_bytes(b"!<arch>\nnot a deb")
    (package,) = kernel.release.packages
    broken = replace(package, sha256=sha256_file(kernel.deb), size=17)
    lock(monkeypatch, tmp_path, {SERIES: replace(kernel.release, packages=(broken,))})
    with pytest.raises(HarnessError, match="dpkg-deb"):
        kernel_kit(SERIES, mirror=kernel.mirror)
    assert leftovers() == [f"debs/{broken.sha256}.deb"]


def list_on_mirror(kernel: SmallKernel, packages: list[Package]) -> None:
    """Do as a refresh of a minute ago did."""
    document = {
        "mirror": kernel.mirror,
        "suites": ["trixie"],
        "left_out": [],
        "packages": [vars(package) for package in packages],
    }
    write_sealed(kernels_directory() / "apt/packages.json", document)


def test_locked_version_that_left_falls_back_loudly(
    kernel: SmallKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package,) = kernel.release.packages
    gone = replace(package, version="6.12.1-1", filename="pool/gone.deb", sha256="1" * 64)
    left = replace(kernel.release, version="6.12.1-1", packages=(gone,))
    lock(monkeypatch, tmp_path, {SERIES: left})
    list_on_mirror(kernel, [package])
    kit = kernel_kit(SERIES, mirror=kernel.mirror)
    assert kit.version == kernel.release.version
    assert "6.12.1-1 is not on" in kit.remarks[-1]
    assert f"newest {kernel.release.version} used" in kit.remarks[-1]
    # and when the mirror is silent later, that kit still serves
    offline = kernel_kit(SERIES, mirror=NOBODY)
    assert offline.vmlinuz == kit.vmlinuz
    assert "does not answer" in offline.remarks[-1]
    # a series that is on the mirror in no version at all
    shutil.rmtree(kit.vmlinuz.parent)
    list_on_mirror(kernel, [])
    with pytest.raises(HarnessError, match=r"no kernel of the series 6\.12"):
        kernel_kit(SERIES, mirror=kernel.mirror)


def test_unlocked_series_uses_the_newest_and_says_so(
    kernel: SmallKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(monkeypatch, tmp_path, {})
    list_on_mirror(kernel, list(kernel.release.packages))
    kit = kernel_kit(SERIES, mirror=kernel.mirror)
    assert "not locked" in kit.remarks[-1]


def test_a_kernel_that_nobody_vouches_for_says_so_whenever_it_is_used(
    kernel: SmallKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package,) = kernel.release.packages
    unsigned = replace(package, listed=False)
    lock(monkeypatch, tmp_path, {SERIES: replace(kernel.release, packages=(unsigned,))})
    for name in (SERIES, kernel.release.version):
        for mirror in (kernel.mirror, NOBODY):  # built, and from the cache
            kit = kernel_kit(name, mirror=mirror)
            assert kit.unsigned == (package.name,)
            assert kit.remarks == (f"no signed list names {package.name}",)


def test_wrong_names_are_told_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown kernel '6\.2'"):
        kernel_kit("6.2")
    with pytest.raises(ConfigError, match=r"is a set of kernels: 5\.10"):
        kernel_kit("default")
    with pytest.raises(ConfigError, match="needs the path of a bzImage"):
        kernel_kit(SERIES, modules=tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        kernel_kit(str(tmp_path / "bzImage"))


def test_custom_kernel_with_and_without_modules(kernel: SmallKernel) -> None:
    release = kernel.release.release
    image = kernel.tree / f"boot/vmlinuz-{release}"
    kit = kernel_kit(str(image), modules=kernel.tree / "usr/lib/modules" / release)
    assert (kit.label, kit.release, kit.package, kit.version) == (release, release, "", "")
    assert kit.sha256 == sha256_file(image)
    assert kit.modules_image is not None
    assert "CONFIG_64BIT=y" in kit.config.read_text()
    alone = kernel_kit(str(image))
    assert alone.modules_image is None
    assert alone.vmlinuz != kit.vmlinuz
    assert kernel_kit(str(image)) == alone


def test_old_kits_are_forgotten_and_used_ones_stay(kernel: SmallKernel) -> None:
    kit = kernel_kit(SERIES, mirror=kernel.mirror)
    kits = kit.vmlinuz.parent.parent
    week = time.time() - 8 * 24 * 3600
    killed = kernels_directory() / "debs/.fetching-killed"
    killed.mkdir()
    os.utime(killed, (week, week))
    for name, age in ((f"{SERIES}-old", week), (f"{SERIES}-new", time.time()), ("6.1-old", week)):
        (kits / name).mkdir()
        (kits / name / "manifest.json").write_text("{}")
        os.utime(kits / name / "manifest.json", (age, age))
    os.utime(kit.vmlinuz.with_name("manifest.json"), (week, week))
    kernel_kit(SERIES, mirror=NOBODY)  # a use keeps it
    (kits / f"{SERIES}-new/manifest.json").touch()
    module._forget_old_kits(SERIES)
    assert not killed.exists()
    kept = {path.name for path in kits.iterdir() if path.is_dir()}
    assert kept == {kit.vmlinuz.parent.name, f"{SERIES}-new", "6.1-old"}


BUILD = """
import os, sys
from pathlib import Path
from hyperbox.harness.lab import kernel_kit, kernel_lock
kernel_lock.lock_path = lambda: Path(sys.argv[1])
unlink, removed = os.unlink, []

def planted(*arguments, **options):
    unlink(*arguments, **options)
    removed.append(arguments)
    if len(removed) == 3:  # the built kit has its name by then, and what is left is scratch
        os.kill(os.getpid(), int(sys.argv[4]))

if len(sys.argv) > 4:
    os.unlink = planted
kernel_kit.kernel_kit(sys.argv[2], mirror=sys.argv[3])
"""


def _interrupted(kernel: SmallKernel, directory: Path, *words: str, path: str = "") -> int:
    """Build in a process of its own; return its exit status."""
    return subprocess.run(
        [sys.executable, "-c", BUILD, directory / "lock.json", SERIES, kernel.mirror, *words],
        stderr=subprocess.DEVNULL,
        cwd=Path(module.__file__).resolve().parents[3],
        env={**os.environ, "PATH": path + os.environ["PATH"]},
        timeout=300,
        check=False,
    ).returncode


def _nothing_half_written(kernel: SmallKernel, number: signal.Signals) -> None:
    if number == signal.SIGINT:
        assert [name for name in leftovers() if "/." in name or "tmp" in name] == []
    kit = kernel_kit(SERIES, mirror=kernel.mirror)
    manifest = json.loads(kit.vmlinuz.with_name("manifest.json").read_text())
    for name, facts in manifest["files"].items():
        assert sha256_file(kit.vmlinuz.with_name(name)) == facts["sha256"]


@pytest.mark.parametrize("program", ["dpkg-deb", "depmod", "mkfs.erofs"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_build_interrupted_in_a_program_leaves_nothing_half_written(
    kernel: SmallKernel, tmp_path: Path, program: str, number: signal.Signals
) -> None:
    planted = tmp_path / "bin" / program
    planted.parent.mkdir()
    planted.write_text(f"#!/bin/sh\nkill -{number.value} $PPID; exec sleep 600\n")
    planted.chmod(0o755)
    assert _interrupted(kernel, tmp_path, path=f"{planted.parent}:") == -number
    _nothing_half_written(kernel, number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_build_interrupted_while_it_tidies_leaves_nothing_half_written(
    kernel: SmallKernel, tmp_path: Path, number: signal.Signals
) -> None:
    assert _interrupted(kernel, tmp_path, str(number.value)) == -number
    _nothing_half_written(kernel, number)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "tiny"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.root
def test_full_disk_is_one_clear_line(
    kernel: SmallKernel, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", str(tiny_disk))
    with pytest.raises(HarnessError, match="no space to build") as caught:
        kernel_kit(SERIES, mirror=kernel.mirror)
    assert "\n" not in caught.value.message
    assert not [name for name in leftovers() if name.startswith("kits/")]


def test_a_locked_kernel_has_its_version_as_a_name_too(kernel: SmallKernel) -> None:
    series = kernel_kit(SERIES, mirror=kernel.mirror)
    point = kernel_kit(kernel.release.version, mirror=kernel.mirror)
    assert point.label == kernel.release.version
    assert point.vmlinuz == series.vmlinuz


def test_any_listed_kernel_can_be_asked_for(
    kernel: SmallKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock(monkeypatch, tmp_path, {})
    packages = [vars(package) for package in kernel.release.packages]
    document = {"mirror": kernel.mirror, "suites": [], "left_out": [], "packages": packages}
    write_sealed(kernels_directory() / "apt/packages.json", document)
    upstream = kernel.release.version.partition("-")[0]
    kit = kernel_kit(upstream, mirror=kernel.mirror)
    assert (kit.label, kit.release) == (kernel.release.version, kernel.release.release)
    assert kernel_kit(kit.label, mirror=NOBODY) == kit
    with pytest.raises(ConfigError, match=r"no packaged kernel '6\.12\.999'") as caught:
        kernel_kit("6.12.999", mirror=kernel.mirror)
    assert upstream in caught.value.hint


def test_the_running_kernel_is_a_kit_of_its_own(
    kernel: SmallKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = kernel.release.release
    monkeypatch.setattr(module, "running_kernel", lambda: running_kernel(kernel.tree, release))
    kit = kernel_kit("host")
    assert (kit.label, kit.package) == (release, "")
    assert kit.modules_image is not None
    assert "CONFIG_PSI=y" in kit.config.read_text()
