"""Lazy mounts by the command line: from a registry, over the service, to the files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hyperbox.cli.main import main
from hyperbox.errors import WorkloadError
from hyperbox.storage.conversion import Converter
from hyperbox.storage.digests import digest_of
from hyperbox.storage.erofs import mounted
from hyperbox.storage.images import ImageStore
from hyperbox.storage.layer_reading import Layer as TarLayer
from hyperbox.storage.lazy.layer_writer import write_layer
from hyperbox.storage.listing import list_directory
from suites.erofs.lazy_lab import ImagesProcess
from tests.storage.conftest import Made, busybox, described, layer, skopeo, write_layout
from tests.storage.conftest import image as made_of

pytestmark = pytest.mark.root

PROJECT = Path(__file__).resolve().parents[3]
CONTENT = os.urandom(3_000_000)


@pytest.fixture
def lazy_image(tmp_path: Path, docker_registry: str) -> str:
    """An image of one EROFS layer in a registry; its name there."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("data")
        member.size = len(CONTENT)
        archive.addfile(member, io.BytesIO(CONTENT))
    (tmp_path / "tar").write_bytes(stream.getvalue())
    tar = TarLayer(tmp_path / "tar", "", digest_of(stream.getvalue()))
    Converter(tmp_path / "converted").write_plain([tar], tmp_path / "image")
    layer = write_layer(tmp_path / "image", tmp_path / "layer", chunk_size=1 << 16)
    blob = (tmp_path / "layer").read_bytes()
    empty = made_of([])
    descriptor = replace(described(blob, layer.media_type), annotations=layer.annotations)
    made = Made(replace(empty.manifest, layers=(descriptor,)), {**empty.blobs, layer.digest: blob})
    layout = write_layout(tmp_path / "layout", made)
    name = f"{docker_registry}/lazy:1"
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{name}")
    return name


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ImagesProcess]:
    """The images service, with a cache of its own."""
    path = tmp_path / "run" / "socket"
    path.parent.mkdir()
    environment = {"PYTHONPATH": os.fspath(PROJECT), "HYPERBOX_LAZY": os.fspath(tmp_path / "lazy")}
    words = [sys.executable, "-m", "hyperbox.daemon.supervisor", "--"]
    words += [sys.executable, "-m", "hyperbox.daemon.worker"]
    words += ["hyperbox.daemon.services.images:ImagesService", "--socket", os.fspath(path)]
    made = ImagesProcess(words, environment, path)
    made.start()
    yield made
    made.kill()


def test_image_of_a_registry_is_mounted_read_completed_and_taken_away(
    lazy_image: str, service: ImagesProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    point = tmp_path / "mount"
    point.mkdir()

    def say(*words: str | Path) -> Any:
        argv = ["images", words[0], "--service", service.path, "--json", *words[1:]]
        assert main([os.fspath(word) for word in argv]) == 0
        said = capsys.readouterr().out
        return json.loads(said) if said else None

    made = say("mount-lazy", lazy_image, point)
    assert "fscache" in made["refused"]
    assert made["mechanism"] in ("file-backed", "loop")
    name = made["name"]
    assert say("mounts")[0]["missing_bytes"] > 1_000_000
    assert (point / "data").read_bytes() == CONTENT
    (tmp_path / "order").write_text(json.dumps(say("trace", name)))
    assert say("prefetch", name, tmp_path / "order") is None
    assert say("complete", name) is None
    assert say("cache")[0]["in_use"] is True
    say("umount-lazy", name)
    assert say("mounts") == []
    assert len(say("cache", "--keep", "0")["keys"]) == 1


def test_without_any_process_reads_are_errors_until_it_is_mounted_again(
    lazy_image: str, service: ImagesProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    point = tmp_path / "mount"
    point.mkdir()
    words = ["images", "mount-lazy", "--service", os.fspath(service.path), lazy_image, str(point)]
    assert main(words) == 0
    with (point / "data").open("rb") as stream:
        service.kill()  # worker and supervisor
        stream.seek(len(CONTENT) - 4096)
        with pytest.raises(OSError, match=r"error|not connected|aborted"):
            stream.read()
        service.start()  # the mount is taken out of the tree
    assert list(point.iterdir()) == []
    (left,) = service.ask("GET", "/images/mounts")
    assert left["phase"] == "broken"
    service.ask("DELETE", f"/images/mounts/{left['name']}")
    assert main(words) == 0
    assert (point / "data").read_bytes() == CONTENT
    service.ask("DELETE", f"/images/mounts/{left['name']}")


@pytest.fixture
def attached(small: Made, docker_registry: str, tmp_path: Path) -> str:
    """An image of three layers in a registry, a lazy one attached to it; its name there."""
    name, root = f"{docker_registry}/attached:1", os.fspath(tmp_path / "builder")
    layout = write_layout(tmp_path / "layout", small)
    assert main(["pull", f"oci:{layout}", "--name", name, "--root", root]) == 0
    assert main(["push", name, "--attach-lazy", "--root", root]) == 0
    return name


def test_pull_names_a_lazy_image_that_is_mounted_and_run(
    attached: str, service: ImagesProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ("--root", os.fspath(tmp_path / "store"))
    words = ["pull", "--lazy", attached, *root, "--service", os.fspath(service.path), "--json"]
    capsys.readouterr()
    assert main(words) == 0
    lazy = Path(json.loads(capsys.readouterr().out)["lazy"])
    assert main(words) == 0  # it is mounted already
    store = ImageStore(tmp_path / "store")
    assert not any(store.blobs.has(one) for one in store.find(attached).manifest.layers)
    (tmp_path / "point").mkdir()
    with mounted(store, attached, tmp_path / "point") as (point, choice):
        assert choice.reason == "it is mounted lazily"
        files = list_directory(point)
        (one,) = service.ask("GET", "/images/mounts")
        with pytest.raises(WorkloadError, match=f"process [0-9]+ has it at {point}"):
            service.ask("DELETE", f"/images/mounts/{one['name']}")
    with mounted(ImageStore(tmp_path / "builder"), attached, tmp_path / "point") as (point, _):
        assert files == list_directory(point)
    service.ask("DELETE", f"/images/mounts/{one['name']}")
    assert list(lazy.iterdir()) == []


def test_pull_of_what_is_not_lazy_or_has_a_digest_is_refused(
    attached: str, service: ImagesProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--root", os.fspath(tmp_path / "store"), "--service", os.fspath(service.path)]
    root = tmp_path / "builder"
    digest = ImageStore(root).find(attached).descriptor.digest
    assert main(["pull", "--lazy", f"{attached}@{digest}", *words]) != 0
    assert "--ready-images on" in capsys.readouterr().err
    assert main(["push", attached, attached.replace("attached", "plain"), "--root", str(root)]) == 0
    assert main(["pull", "--lazy", attached.replace("attached", "plain"), *words]) != 0
    assert "push --attach-lazy" in capsys.readouterr().err
    assert service.ask("GET", "/images/mounts") == []


def test_container_of_a_complete_image_depends_on_no_process(
    docker_registry: str, service: ImagesProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, builder = f"{docker_registry}/shell:1", os.fspath(tmp_path / "builder")
    layout = write_layout(tmp_path / "layout", made_of([busybox(), layer(("big", CONTENT))]))
    assert main(["pull", f"oci:{layout}", "--name", name, "--root", builder]) == 0
    assert main(["push", name, "--attach-lazy", "--root", builder]) == 0
    words = ["--root", os.fspath(tmp_path / "store"), "--service", os.fspath(service.path)]
    places = {"HYPERBOX_STATE": "state", "HYPERBOX_IMAGES_ROOT": "store"}
    variables = {name: os.fspath(tmp_path / place) for name, place in places.items()}

    def sum_in_container() -> str:
        argv = [sys.executable, "-m", "hyperbox", "run", "--image", name, "--"]
        done = subprocess.run(
            [*argv, "sh", "-c", "sha256sum /big"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, **variables},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[0]

    expected = hashlib.sha256(CONTENT).hexdigest()
    assert main(["pull", "--lazy", name, *words]) == 0
    (one,) = service.ask("GET", "/images/mounts")
    assert one["missing_bytes"] > len(CONTENT) / 2
    assert sum_in_container() == expected
    service.ask("POST", f"/images/mounts/{one['name']}/complete", {})
    while service.ask("GET", "/images/mounts")[0]["missing_chunks"]:
        time.sleep(0.05)
    service.ask("DELETE", f"/images/mounts/{one['name']}")
    assert main(["pull", "--lazy", name, *words]) == 0
    service.kill()  # worker and supervisor
    assert sum_in_container() == expected
    service.start()
    (one,) = service.ask("GET", "/images/mounts")
    assert (one["phase"], one["served_by_a_process"]) == ("complete", False)
    service.ask("DELETE", f"/images/mounts/{one['name']}")


def test_absent_service_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["images", "mounts", "--service", os.fspath(tmp_path / "none")]) == 3
    assert "hyperbox daemon --lazy-images" in capsys.readouterr().err
