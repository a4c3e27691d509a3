"""``hyperbox images convert|mount|umount|diff`` on a store with images from a seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import ExitCode
from hyperbox.linux.mounts import mounts
from hyperbox.storage.images import ImageStore
from hyperbox.storage.listing import differences, list_directory
from hyperbox.storage.oci import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Manifest, encode
from hyperbox.storage.reference import parse_reference
from hyperbox.storage.rung import Rung
from workloads.images import image_layers

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images") / "store"
    for name in ("web", "jvm"):
        _add(ImageStore(root), name)
    return root


def _add(store: ImageStore, name: str) -> None:
    layers = image_layers(name, scale=0.05)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    described = store.blobs.add(json.dumps(config).encode(), OCI_CONFIG)
    blobs = tuple(store.blobs.add(layer.archive, OCI_LAYER) for layer in layers)
    manifest = store.blobs.add(encode(Manifest(described, blobs)), OCI_MANIFEST)
    store.tag(parse_reference(name), manifest)


def images(root: Path, *words: str) -> int:
    return main(["images", *words, "--root", str(root)])


@pytest.mark.parametrize("rung", list(Rung))
def test_an_image_is_mounted_until_it_is_unmounted(root: Path, tmp_path: Path, rung: Rung) -> None:
    assert images(root, "mount", "web", str(tmp_path), "--rung", rung) == ExitCode.PASS
    try:
        assert images(root, "diff", "web", f"{tmp_path}/") == ExitCode.PASS
        assert images(root, "diff", "jvm", f"{tmp_path}/") == ExitCode.GATE_FAILED
    finally:
        assert images(root, "umount", str(tmp_path)) == ExitCode.PASS
    assert list(tmp_path.iterdir()) == []
    assert images(root, "umount", str(tmp_path)) == ExitCode.BAD_USAGE


def test_the_choice_and_its_reason_are_shown(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert images(root, "convert", "web", "--json", "--erofs-enabled", "off") == ExitCode.PASS
    facts = json.loads(capsys.readouterr().out)
    assert facts["rung"] != "erofs"
    assert facts["refused"]["erofs"] == "erofs_enabled is off"
    assert Path(facts["path"]).exists()


def test_a_plain_image_is_one_file(root: Path, tmp_path: Path) -> None:
    plain, point = tmp_path / "web.erofs", tmp_path / "point"
    assert images(root, "convert", "web", "--plain", str(plain)) == ExitCode.PASS
    assert plain.read_bytes()[1024:1028] == b"\xe2\xe1\xf5\xe0"
    point.mkdir()


def test_wrong_names_are_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [found.point for found in mounts("overlay")]
    assert images(root, "mount", "absent", str(tmp_path)) == ExitCode.BAD_USAGE
    assert images(root, "mount", "web", str(tmp_path / "absent")) == ExitCode.BAD_USAGE
    limited = ("convert", "jvm", "--rung", "composefs", "--most-entries", "1")
    assert images(root, *limited) == ExitCode.HARNESS_ERROR
    assert [found.point for found in mounts("overlay")] == before
    assert "Traceback" not in capsys.readouterr().err


def test_prune_removes_conversions_of_images_that_are_gone(root: Path) -> None:
    assert images(root, "convert", "jvm", "--rung", "layers") == ExitCode.PASS
    converted = root / "converted" / "layers"
    many = len(list(converted.iterdir()))
    assert images(root, "prune") == ExitCode.PASS
    assert len(list(converted.iterdir())) == many
    assert images(root, "remove", "jvm") == ExitCode.PASS
    assert images(root, "prune") == ExitCode.PASS
    assert len(list(converted.iterdir())) < many
    _add(ImageStore(root), "jvm")


def test_images_differ_name_by_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert images(root, "diff", "web", "web") == ExitCode.PASS
    assert images(root, "diff", "web", "jvm", "--json") == ExitCode.GATE_FAILED
    lines = json.loads(capsys.readouterr().out)
    assert {line[0] for line in lines} >= {"+", "-"}
    assert not list(differences(list_directory(root), list_directory(root)))
