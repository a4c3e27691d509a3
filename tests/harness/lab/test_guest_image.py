"""Images are reproducible, cached by content, and a damaged cache is noticed."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.harness.declarations import load_suite
from hyperbox.harness.lab import debian_tree, guest_image
from hyperbox.harness.lab.erofs_image import ALIGNMENT, LABEL, make_erofs
from hyperbox.harness.lab.guest_image import (
    no_project,
    package_list,
    project_image,
    root_image,
)
from hyperbox.harness.lab.image_cache import GuestImage
from hyperbox.harness.lab.kernel_kit import KernelKit, kernel_kit
from hyperbox.harness.lab.qemu import find_qemu
from hyperbox.harness.lab.snapshot_cache import snapshot_key
from hyperbox.harness.lab.vm_laboratory import hardware_for
from hyperbox.harness.model import Lane
from hyperbox.paths import cache_directory
from hyperbox.processes import run

pytestmark = pytest.mark.vm  # needs mkfs.erofs
PROJECT = Path(__file__).parents[3]
PROJECTS_CACHE = cache_directory()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYPERBOX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tree(path: Path, *, when: float) -> Path:
    (path / "etc").mkdir(parents=True)
    for name in ("b", "a"):
        (path / "etc" / name).write_text(f"content of {name}\n" * 1000)
        os.utime(path / "etc" / name, (when, when))
    return path


def test_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    images = [tmp_path / "one.erofs", tmp_path / "two.erofs"]
    for image in images:
        make_erofs(tree(tmp_path / image.stem, when=hash(image) % 10**9), image, "etc")
    assert images[0].read_bytes() == images[1].read_bytes()
    assert images[0].stat().st_size % ALIGNMENT == 0
    run(["fsck.erofs", f"--extract={tmp_path / 'out'}", images[0]], timeout=60)
    assert (tmp_path / "out" / LABEL).read_text() == "etc\n"
    make_erofs(tmp_path / "one", images[1], "other")
    assert images[0].read_bytes() != images[1].read_bytes()


def test_failed_packing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(HarnessError):
        make_erofs(tmp_path / "absent", tmp_path / "x.erofs", "etc")
    big = tree(tmp_path / "tree", when=1)
    (big / "noise").write_bytes(os.urandom(3 << 20))
    with pytest.raises(HarnessError, match="the etc image takes"):
        make_erofs(big, tmp_path / "x.erofs", "etc", size=ALIGNMENT)
    assert list(tmp_path.iterdir()) == [big]


def test_package_list_ignores_reasons_and_order() -> None:
    assert package_list("# head\nzlib # why\n\n  apt\n") == ("apt", "zlib")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project whose modules a test may change."""
    copy = tmp_path / "project"
    for part in ("hyperbox", "suites", "workloads"):
        shutil.copytree(PROJECT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    files = {
        path.relative_to(copy).as_posix(): path
        for path in sorted(copy.rglob("*"))
        if path.suffix in (".py", ".toml")
    }
    monkeypatch.setattr(guest_image, "_project_files", lambda: files)
    return copy


def change(path: Path) -> None:
    path.write_text(path.read_text() + "# changed\n")


def image_of(gate: str) -> GuestImage:
    """The image of one of the real experiments."""
    suite = load_suite(PROJECT / "suites/psi/suite.toml")
    return project_image(next(one for one in suite.experiments if one.id == gate))


def key(kit: KernelKit, project: GuestImage) -> dict[str, Any]:
    hardware = hardware_for(kit, Lane.EXACT, project, project)  # any root will do
    return snapshot_key(find_qemu(), hardware, ())


def test_a_measurement_depends_on_what_it_uses_and_on_nothing_else(
    cache: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERBOX_CACHE", str(PROJECTS_CACHE))
    kit = kernel_kit("6.12")
    monkeypatch.setenv("HYPERBOX_CACHE", str(cache))
    before, root = image_of("psi.reaction"), project_image()
    known = key(kit, before)
    for other in (
        "hyperbox/harness/report/markdown.py",
        "hyperbox/harness/runs/engine.py",
        "hyperbox/harness/lab/vm.py",
        "hyperbox/daemon/server.py",
        "suites/psi/accuracy.py",
        "suites/harness/work.py",
        "suites/psi/suite.toml",
    ):
        change(project / other)
    assert image_of("psi.reaction") == before
    assert key(kit, image_of("psi.reaction")) == known
    assert project_image() != root  # what people see in a shell
    for own in (
        "suites/psi/reaction.py",
        "hyperbox/memory/policy.py",
        "workloads/file_stream.py",  # started by its path
        "hyperbox/harness/lab/agent.py",
    ):
        now = key(kit, image_of("psi.reaction"))
        change(project / own)
        assert key(kit, image_of("psi.reaction")) != now


def test_what_imports_do_not_show_is_declared(cache: Path, project: Path) -> None:
    before = image_of("psi.endpoint")
    change(project / "hyperbox/daemon/server.py")  # through `uses`
    assert image_of("psi.endpoint") != before
    suite = load_suite(PROJECT / "suites/psi/suite.toml")
    for name in ("hyperbox.cli.demon", "suites/*.json"):
        wrong = dataclasses.replace(suite.experiments[0], uses=(name,))
        with pytest.raises(ConfigError, match=f"uses '{re.escape(name)}'"):
            project_image(wrong)


def test_project_images_can_take_each_others_place(cache: Path) -> None:
    images = (project_image(), image_of("psi.history"), no_project())
    assert len({image.sha256 for image in images}) == 3
    assert len({image.path.stat().st_size for image in images}) == 1
    assert project_image() == images[0]


def test_images_that_nobody_asked_for_since_a_day_go(cache: Path) -> None:
    old, used = image_of("psi.history"), image_of("psi.accuracy")
    for image in (old, used):
        os.utime(image.path.with_suffix(".json"), (1, 1))
    assert image_of("psi.accuracy") == used
    image_of("psi.reaction")
    assert (old.path.exists(), used.path.exists()) == (False, True)


@pytest.mark.parametrize("damage", ["flip", "truncate", "record", "fact"])
def test_damaged_cache_is_built_anew(cache: Path, damage: str) -> None:
    image = project_image()
    whole = image.path.read_bytes()
    if damage == "flip":
        image.path.write_bytes(whole[:2000] + b"\xff" + whole[2001:])
    elif damage == "truncate":
        image.path.write_bytes(whole[: ALIGNMENT // 2])
    elif damage == "record":
        image.path.with_suffix(".json").write_text("{")
    else:
        record = image.path.with_suffix(".json")
        record.write_text(record.read_text().replace(image.sha256[:8], "01234567"))
    assert project_image() == image
    assert image.path.read_bytes() == whole


def test_root_image_without_space_says_so_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian_tree, "_SPACE", 1 << 60)
    with pytest.raises(HarnessError, match="MiB free") as caught:
        root_image()
    assert "HYPERBOX_CACHE" in caught.value.hint
    assert not list(cache.rglob("*.erofs"))
