"""Pulls from a real registry into a real store, read back by a client of others."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hyperbox.errors import ImageError
from hyperbox.storage.images import ImageStore
from hyperbox.storage.oci import EMPTY
from hyperbox.storage.pull import PullOptions, connect, pull
from hyperbox.storage.push import push
from hyperbox.storage.reference import parse_reference
from hyperbox.storage.upload import Upload
from tests.storage.conftest import Made, skopeo, write_layout


@pytest.fixture(scope="module")
def served(docker_registry: str, small: Made, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small image in the registry, brought there by skopeo; its name."""
    place = write_layout(tmp_path_factory.mktemp("layout"), small)
    name = f"{docker_registry}/team/small:1"
    skopeo("copy", "--dest-tls-verify=false", f"oci:{place}:latest", f"docker://{name}")
    return name


def hyperbox(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hyperbox", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_an_image_is_pulled_verified_and_listed(served: str, small: Made, tmp_path: Path) -> None:
    root = tmp_path / "store"
    done = hyperbox("pull", served, "--root", root, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["digest"] == small.digest
    done = hyperbox("images", "list", "--root", root)
    assert (done.returncode, done.stderr) == (0, "")
    assert "team/small:1" in done.stdout
    done = hyperbox("images", "verify", "--root", root, served)
    assert (done.returncode, done.stderr) == (0, "")
    done = hyperbox("images", "inspect", "--root", root, served, "--json")
    assert json.loads(done.stdout)["arguments"] == ["/bin/app"]
    for digest, data in small.blobs.items():
        assert (root / "blobs/sha256" / digest.partition(":")[2]).read_bytes() == data
    said = skopeo("inspect", f"oci:{root}:{served}")
    assert len(json.loads(said)["Layers"]) == 3


def test_by_digest_it_is_the_same(served: str, small: Made, tmp_path: Path) -> None:
    reference = parse_reference(f"{served.rpartition(':')[0]}@{small.digest}")
    image = pull(connect(reference, PullOptions()), ImageStore(tmp_path))
    assert image.descriptor.digest == small.digest


def test_pulls_at_once_share_the_work(served: str, small: Made, tmp_path: Path) -> None:
    reference = parse_reference(served)

    def once(_: int) -> str:
        registry = connect(reference, PullOptions(jobs=2))
        return pull(registry, ImageStore(tmp_path)).descriptor.digest

    with concurrent.futures.ThreadPoolExecutor(6) as executor:
        assert set(executor.map(once, range(6))) == {small.digest}
    assert sorted(one.name for one in (tmp_path / "partial").iterdir()) == []


def test_what_is_not_there_is_one_line(docker_registry: str, tmp_path: Path) -> None:
    done = hyperbox("pull", f"{docker_registry}/nothing", "--root", tmp_path)
    assert done.returncode == 3
    assert "HTTP status 404" in done.stderr


def test_what_is_pushed_can_be_read_by_others(served: str, small: Made, tmp_path: Path) -> None:
    root = tmp_path / "store"
    assert hyperbox("pull", served, "--root", root).returncode == 0
    other = served.replace("team/small:1", "team/other:2")
    done = hyperbox("push", served, other, "--root", root, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["sent"] == sum(map(len, small.blobs.values()))
    said = skopeo("inspect", "--tls-verify=false", f"docker://{other}")
    assert json.loads(said)["Digest"] == small.digest
    third = served.replace("team/small:1", "team/third:2")
    done = hyperbox("push", served, third, "--root", root, "--mount-from", "team/small", "--json")
    assert json.loads(done.stdout)["sent"] == 0


def test_chunks_make_the_same_blob(served: str, small: Made, tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = pull(connect(parse_reference(served), PullOptions()), store)
    target = parse_reference(served.replace("team/small:1", "chunked:1"))
    registry = connect(target, PullOptions(), actions="pull,push")
    push(registry, store, image, chunk=1000)
    again = pull(connect(target, PullOptions()), ImageStore(tmp_path / "again"))
    assert again.descriptor.digest == small.digest


def test_artifacts_are_found_by_what_they_belong_to(served: str, tmp_path: Path) -> None:
    """docker-registry 2.8 has no referrers API: the index under a tag serves."""
    store = ImageStore(tmp_path)
    image = pull(connect(parse_reference(served), PullOptions()), store)
    registry = connect(parse_reference(served), PullOptions(), actions="pull,push")
    upload = Upload(registry)
    assert registry.referrers(image.descriptor.digest) == ()
    sent = [
        upload.attach(image.descriptor, (EMPTY,), kind)  # which is there, as its configuration
        for kind in ("application/vnd.a", "application/vnd.b")
    ]
    assert registry.referrers(image.descriptor.digest) == tuple(sent)
    assert registry.referrers(image.descriptor.digest, "application/vnd.b") == (sent[1],)
    with pytest.raises(ImageError, match="is an artifact"):
        pull(connect(registry.reference.at(sent[0].digest), PullOptions()), store)
