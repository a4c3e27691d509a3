"""The store: whole or absent after kills, full disks and prunes; shared by processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError, HarnessError, ImageError
from hyperbox.storage.images import ImageStore
from hyperbox.storage.layouts import import_layout
from hyperbox.storage.oci import Descriptor
from tests.storage.conftest import Made, described, image, layer, write_layout
from tests.storage.misbehaving import Handler, misbehaving


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a tmpfs of 64 KiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", mount], check=True)
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_prune_removes_what_no_name_needs(small: Made, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    first = import_layout(write_layout(tmp_path / "a", small, "a:1"), store)
    other = image([layer(("bin/app", b"#!/bin/sh\n"), ("etc/a", b"1" * 5000))])
    second = import_layout(write_layout(tmp_path / "b", other, "b:1"), store)
    assert store.prune().files == 0
    (store.root / "partial").mkdir(exist_ok=True)
    (store.root / "partial" / "sha256-left").write_bytes(b"left")
    store.untag(first.name)
    gone = {one.digest for one in first.manifest.blobs} - {
        one.digest for one in second.manifest.blobs
    }
    assert store.prune().files == len(gone) + 2  # its manifest, and what was left
    assert list(store.names()) == [second.name]
    for descriptor in second.manifest.blobs:
        store.blobs.verify(descriptor)
    assert not any(store.blobs.path(digest).exists() for digest in gone)


def test_prune_waits_for_nobody_and_disturbs_nobody(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    with store.in_use(), pytest.raises(HarnessError, match="being pulled"):
        store.prune()
    assert store.prune().files == 0


def test_names_lead_to_images(small: Made, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    made = import_layout(write_layout(tmp_path / "a", small, "a:1"), store)
    assert store.named("a:1") == made.name
    assert store.named(small.digest[7:15]) == made.name
    for text in ("b", "a:2", small.digest[7:12], "A B"):
        with pytest.raises(ConfigError, match="no image is called"):
            store.find(text)


def test_damage_is_found(small: Made, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    made = import_layout(write_layout(tmp_path / "a", small), store)
    for descriptor in made.manifest.blobs:
        path = store.blobs.path(descriptor.digest)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        with pytest.raises(ImageError, match="has changed on disk"):
            store.blobs.verify(descriptor)
    with pytest.raises(ImageError, match="has changed on disk"):
        store.find(made.name)


@pytest.mark.root
def test_a_full_disk_is_one_clear_error_and_what_came_is_gone_on_with(small_disk: Path) -> None:
    data = os.urandom(100_000)
    descriptor = described(data, "application/octet-stream")
    store = ImageStore(small_disk)

    def fill() -> None:
        with store.blobs.incoming(descriptor) as sink:
            assert sink is not None
            for start in range(0, len(data), 10_000):
                sink.append(data[start : start + 10_000])

    with pytest.raises(HarnessError, match="No space left on device") as caught:
        fill()
    assert "free some space" in caught.value.hint
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    with store.blobs.incoming(descriptor) as sink:
        assert sink is not None
        assert 0 < sink.size < len(data)
        sink.append(data[sink.size :])
    store.blobs.verify(descriptor)


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = ImageStore(tmp_path / "file" / "store")
    with pytest.raises(HarnessError, match="cannot write"):
        store.blobs.put(Descriptor("", "sha256:" + "0" * 64, 1), b"x")
    with pytest.raises(HarnessError, match="cannot write"), store.in_use():
        pass


def test_a_killed_pull_leaves_a_store_that_the_next_one_completes(
    small: Made, tmp_path: Path
) -> None:
    blob = max(small.manifest.layers, key=lambda one: one.size)
    data = small.blobs[blob.digest]
    with misbehaving(small) as server:

        def stall(request: Handler) -> bool:
            if blob.digest not in request.path:
                return False
            request.send_response(200)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data[: len(data) // 2])
            request.wfile.flush()
            time.sleep(30)
            return True

        server.rule = stall
        place = os.fspath(tmp_path)
        words = [sys.executable, "-m", "hyperbox", "pull", f"{server.host}/app", "--root", place]
        process = subprocess.Popen(words)
        partial = tmp_path / "partial" / blob.digest.replace(":", "-")
        while not (partial.exists() and partial.stat().st_size):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        store = ImageStore(tmp_path)
        assert store.names() == {}
        server.rule = lambda request: False
        server.seen.clear()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        found = store.find(f"{server.host}/app")
        for descriptor in found.manifest.blobs:
            store.blobs.verify(descriptor)
        assert any("Range" in headers for _, path, headers in server.seen if blob.digest in path)
