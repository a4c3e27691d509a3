"""Images are reproducible, cached by content, and a damaged cache is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyperbox.errors import HarnessError
from hyperbox.harness.lab import guest_image
from hyperbox.harness.lab.guest_image import (
    ALIGNMENT,
    make_erofs,
    package_list,
    project_image,
    root_image,
)
from hyperbox.processes import run

pytestmark = pytest.mark.vm  # needs mkfs.erofs
UUID = "68797065-7262-6f78-0000-00000000000f"


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
        make_erofs(tree(tmp_path / image.stem, when=hash(image) % 10**9), image, uuid=UUID)
    assert images[0].read_bytes() == images[1].read_bytes()
    assert images[0].stat().st_size % ALIGNMENT == 0
    run(["fsck.erofs", images[0]], timeout=60)


def test_failed_packing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(HarnessError):
        make_erofs(tmp_path / "absent", tmp_path / "x.erofs", uuid=UUID)
    assert list(tmp_path.iterdir()) == []


def test_package_list_ignores_reasons_and_order() -> None:
    assert package_list("# head\nzlib # why\n\n  apt\n") == ("apt", "zlib")


def test_project_image_is_cached_and_follows_the_code(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    for part in ("suites", "workloads"):
        (project / part).mkdir(parents=True)
    (project / "workloads" / "load.py").write_text("print(1)\n")
    monkeypatch.setattr(guest_image, "project_directory", lambda: project)
    first = project_image()
    assert project_image() == first
    (project / "workloads" / "load.py").write_text("print(2)\n")
    assert project_image().sha256 != first.sha256


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
    monkeypatch.setattr(guest_image, "_ROOT_SPACE", 1 << 60)
    with pytest.raises(HarnessError, match="MiB free") as caught:
        root_image()
    assert "HYPERBOX_CACHE" in caught.value.hint
    assert not list(cache.rglob("*.erofs"))
