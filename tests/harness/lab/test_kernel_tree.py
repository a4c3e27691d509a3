"""Kernel packages are others' data: what a link in them names is never read nor written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hyperbox.errors import HarnessError
from hyperbox.harness.lab.kernel_tree import stage_modules, unpack_debs

RELEASE = "6.12.1-cloud-amd64"
HOME = f"usr/lib/modules/{RELEASE}"


def deb(directory: Path, name: str, files: dict[str, str], links: dict[str, str]) -> Path:
    tree = directory / name
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: b\n"
    (tree / "DEBIAN/control").write_text(control)
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    for path, target in links.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to(target)
    package = directory / f"{name}.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", tree, package], check=True)
    return package


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("secret")
    return path


KERNEL = {f"{HOME}/vmlinuz": "image", f"{HOME}/config": "CONFIG_A=y\n", f"{HOME}/a.ko": "module"}


def texts(top: Path) -> dict[str, str]:
    return {
        path.relative_to(top).as_posix(): path.read_text(errors="replace")
        for path in top.rglob("*")
        if path.is_file()
    }


def test_links_out_of_a_package_are_not_followed(tmp_path: Path, secret: Path) -> None:
    links = {
        f"{HOME}/kernel/absolute.ko": str(secret),
        f"{HOME}/kernel/relative.ko": "../../../../../../secret",
        f"{HOME}/kernel/chain.ko": "absolute.ko",
        f"{HOME}/kernel/loop.ko": "loop.ko",
        f"{HOME}/kernel/within.ko": "../a.ko",
        f"{HOME}/modules.order": str(secret),
        f"{HOME}/build": str(tmp_path),
        f"{HOME}/inner": ".",
    }
    packages = [deb(tmp_path, "linux-image", KERNEL, links)]
    tree = unpack_debs(packages, RELEASE, tmp_path / "unpacked")
    assert tree.modules is not None
    top = stage_modules(tree.modules, RELEASE, tmp_path / "staging")
    staged = texts(top / RELEASE)
    assert [name for name in staged if name.endswith(".ko")] == ["a.ko", "kernel/within.ko"]
    assert "secret" not in "".join(staged.values())


@pytest.mark.parametrize("name", ["vmlinuz", "config"])
def test_image_and_configuration_are_of_the_package(
    tmp_path: Path, secret: Path, name: str
) -> None:
    files = {path: text for path, text in KERNEL.items() if not path.endswith(name)}
    package = deb(tmp_path, "linux-image", files, {f"{HOME}/{name}": str(secret)})
    if name == "vmlinuz":
        with pytest.raises(HarnessError, match="no kernel image"):
            unpack_debs([package], RELEASE, tmp_path / "unpacked")
    else:
        assert unpack_debs([package], RELEASE, tmp_path / "unpacked").config is None


def test_no_package_is_unpacked_through_a_link_of_an_earlier_one(
    tmp_path: Path, secret: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    first = deb(tmp_path, "linux-base", {}, {"usr/lib/modules": str(outside)})
    second = deb(tmp_path, "linux-image", KERNEL, {})
    tree = unpack_debs([first, second], RELEASE, tmp_path / "unpacked")
    assert list(outside.iterdir()) == []
    assert tree.vmlinuz.read_text() == "image"


def test_directories_out_of_a_tree_of_ones_own_are_not_followed(
    tmp_path: Path, secret: Path
) -> None:
    source = tmp_path / "modules"
    source.mkdir()
    (source / "a.ko").write_text("module")
    (source / "b.ko").symlink_to(secret)
    (source / "extra").symlink_to(tmp_path)
    os.mkfifo(source / "c.ko")
    (tmp_path / "d.ko").write_text("other")
    top = stage_modules(source, RELEASE, tmp_path / "staging")
    assert [name for name in texts(top / RELEASE) if name.endswith(".ko")] == ["a.ko"]
