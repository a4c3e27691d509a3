"""Images in files, written and read by skopeo and by us; damaged ones are refused."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError, HyperboxError, ImageError
from hyperbox.storage.images import ImageStore
from hyperbox.storage.layouts import (
    FORMATS,
    export_image,
    import_docker_archive,
    import_layout,
)
from tests.storage.conftest import Made, image, layer, skopeo, write_layout


def test_a_layout_is_read(small: Made, tmp_path: Path) -> None:
    place = write_layout(tmp_path / "My app", small, "1.2")
    found = import_layout(place, ImageStore(tmp_path / "store"))
    assert found.name == "docker.io/library/my-app:1.2"
    assert found.descriptor.digest == small.digest


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_exported_can_be_read_by_others_and_by_us(
    small: Made, form: str, tmp_path: Path
) -> None:
    store = ImageStore(tmp_path / "store")
    found = import_layout(write_layout(tmp_path / "in", small, "team/app:1"), store)
    out = tmp_path / "out"
    export_image(found, store, out, form)
    source = f"{form}:{out}" if form == "docker-archive" else f"{form}:{out}:{found.name}"
    assert len(json.loads(skopeo("inspect", source))["Layers"]) == 3
    other = ImageStore(tmp_path / "other")
    read = import_docker_archive if form == "docker-archive" else import_layout
    again = read(out, other)
    assert again.name == found.name
    assert again.config == found.config
    assert [one.digest for one in again.manifest.layers] == [
        one.digest for one in found.manifest.layers
    ]


def test_what_skopeo_saves_for_docker_is_read(small: Made, tmp_path: Path) -> None:
    place = write_layout(tmp_path / "in", small)
    archive = tmp_path / "saved.tar"
    skopeo("copy", f"oci:{place}:latest", f"docker-archive:{archive}:team/app:7")
    found = import_docker_archive(archive, ImageStore(tmp_path / "store"))
    assert found.name == "docker.io/team/app:7"
    assert [one.digest for one in found.manifest.layers] == list(found.config.diff_ids)


def test_which_image_must_be_clear(small: Made, tmp_path: Path) -> None:
    place = write_layout(tmp_path / "in", small, "a:1")
    index = json.loads((place / "index.json").read_text())
    index["manifests"].append(
        {**index["manifests"][0], "annotations": {"org.opencontainers.image.ref.name": "b:1"}}
    )
    (place / "index.json").write_text(json.dumps(index))
    store = ImageStore(tmp_path / "store")
    with pytest.raises(ConfigError, match="2 images") as refused:
        import_layout(place, store)
    assert "a:1, b:1" in refused.value.hint
    assert import_layout(place, store, wanted="b:1").name == "docker.io/library/b:1"
    with pytest.raises(ConfigError, match="no image 'c'"):
        import_layout(place, store, wanted="c")


def test_a_changed_blob_is_refused_and_no_name_is_given(small: Made, tmp_path: Path) -> None:
    place = write_layout(tmp_path / "in", small)
    digest = small.manifest.layers[1].digest
    (place / "blobs" / digest.replace(":", "/")).write_bytes(b"x" * small.manifest.layers[1].size)
    store = ImageStore(tmp_path / "store")
    with pytest.raises(ImageError, match="do not have this digest"):
        import_layout(place, store)
    assert store.names() == {}
    assert not store.blobs.has(small.manifest.layers[1])


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "loop"])
def test_links_lead_nowhere_outside(target: str, tmp_path: Path) -> None:
    made = image([layer(("a", b"a"))])
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for name, link in (("manifest.json", target), ("loop", "loop")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, link
            tar.addfile(member)
    with pytest.raises(ImageError, match="has no file"):
        import_docker_archive(path, ImageStore(tmp_path / "store"))
    place = write_layout(tmp_path / "in", made)
    digits = made.manifest.layers[0].digest.replace(":", "/")
    (place / "blobs" / digits).unlink()
    (place / "blobs" / digits).symlink_to("/etc/passwd")
    with pytest.raises(HyperboxError, match=r"leads out of it|has \d+ bytes"):
        import_layout(place, ImageStore(tmp_path / "store"))


@pytest.mark.parametrize("damage", [b"", b"x" * 512, os.urandom(2000)])
def test_what_is_no_archive_is_one_line(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.tar"
    path.write_bytes(damage)
    with pytest.raises(ImageError):
        import_docker_archive(path, ImageStore(tmp_path / "store"))
