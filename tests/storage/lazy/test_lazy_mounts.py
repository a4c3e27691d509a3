"""Lazy mounts on the machine's own kernel, by every mechanism that it has."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError, HarnessError, HyperboxError, KernelFeatureMissing
from hyperbox.linux.mounts import mounts
from hyperbox.storage.conversion import Converter
from hyperbox.storage.layer_reading import Layer as TarLayer
from hyperbox.storage.lazy.chunk_source import HttpSource
from hyperbox.storage.lazy.content_cache import ContentCache
from hyperbox.storage.lazy.layer_writer import WrittenLayer, write_layer
from hyperbox.storage.lazy.lazy_mounts import LazyMounts
from hyperbox.storage.lazy.mechanism import Mechanism
from hyperbox.storage.lazy.mount_record import LayerRecord
from hyperbox.storage.lazy.remote_index import RemoteIndex, fetch_index
from suites.erofs.blob_server import BlobServer, serving
from suites.erofs.lazy_lab import ImagesProcess

pytestmark = pytest.mark.root

PROJECT = Path(__file__).resolve().parents[3]


@dataclass
class Image:
    """An EROFS image of known files, as a layer behind a server."""

    directory: Path
    contents: Mapping[str, bytes]
    layer: WrittenLayer
    server: BlobServer

    @property
    def point(self) -> Path:
        return self.directory / "mount"

    @property
    def url(self) -> str:
        return f"{self.server.url}/layer"

    def index(self) -> RemoteIndex:
        source = HttpSource(self.url)
        return fetch_index(source, self.layer.annotations, self.layer.size, framed=True)

    def table(self, limit_s: float = 10.0) -> LazyMounts:
        state, cache = self.directory / "state", ContentCache(self.directory / "cache")
        return LazyMounts(state, cache, HttpSource, limit_s=limit_s)

    def mounted(self, table: LazyMounts, mechanism: Mechanism) -> None:
        index = self.index()
        record = LayerRecord(index.key, index.stored, (self.url,))
        try:
            table.mount("one", self.point, record, index.payload, mechanism)
        except KernelFeatureMissing as missing:
            table.stop()
            pytest.skip(missing.message)

    def is_right(self) -> bool:
        """Whether all files have their bytes, read anew and not from memory."""
        for name, data in self.contents.items():
            with (self.point / name).open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if stream.read() != data:
                    return False
        return True


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    seeded = random.Random(5)
    contents = {f"dir{n % 3}/file{n}": seeded.randbytes(n * 4000 + 7) for n in range(20)}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (tmp_path / "tar").write_bytes(stream.getvalue())
    digest = f"sha256:{hashlib.sha256(stream.getvalue()).hexdigest()}"
    Converter(tmp_path / "store").write_plain(
        [TarLayer(tmp_path / "tar", "", digest)], tmp_path / "image"
    )
    layer = write_layer(tmp_path / "image", tmp_path / "blobs" / "layer", chunk_size=1 << 15)
    (tmp_path / "mount").mkdir()
    with serving(tmp_path / "blobs") as server:
        yield Image(tmp_path, contents, layer, server)


@pytest.mark.parametrize("mechanism", [Mechanism.FILE, Mechanism.LOOP])
def test_files_are_right_and_fetched_when_they_are_read(image: Image, mechanism: Mechanism) -> None:
    table = image.table()
    image.mounted(table, mechanism)
    before = image.server.sent
    assert (image.point / "dir1/file1").read_bytes() == image.contents["dir1/file1"]
    assert image.server.sent - before < image.layer.size / 2
    assert image.is_right()
    table.complete("one")
    while table.state()[0]["phase"] != "complete":
        time.sleep(0.01)
    alone = mechanism is Mechanism.LOOP  # the device reads the cache's file by now
    assert table.state()[0]["served_by_a_process"] is not alone
    assert any(image.directory in one.point.parents for one in mounts("fuse")) is not alone
    assert image.is_right()
    if alone:
        table.stop()
        table = image.table()
        table.resume()
        assert table.state()[0]["phase"] == "complete"
        assert image.is_right()
    table.unmount("one")
    table.stop()
    assert not [
        one for one in (*mounts("erofs"), *mounts("fuse")) if image.directory in one.point.parents
    ]
    assert [path.name for path in (image.directory / "state").iterdir()] == ["lock"]


def test_second_service_says_who_has_the_mounts(image: Image) -> None:
    table = image.table()
    with pytest.raises(HarnessError, match=f"process {os.getpid()}"):
        image.table()
    table.stop()
    image.table().stop()


def test_source_that_lies_is_an_error_until_it_does_not(image: Image) -> None:
    table = image.table(limit_s=0.2)
    image.mounted(table, Mechanism.FILE)
    image.server.fault = "flip"
    with pytest.raises(OSError, match="Input/output error"):
        (image.point / "dir1/file19").read_bytes()
    image.server.fault = ""
    assert image.is_right()
    table.unmount("one")
    table.stop()


def test_refused_mount_leaves_nothing(image: Image) -> None:
    table, index = image.table(), image.index()
    record = LayerRecord(index.key, index.stored, (image.url,))
    refused = [(Mechanism.FSCACHE, image.point), (Mechanism.FILE, image.directory / "absent")]
    for mechanism, point in refused:
        with pytest.raises(HyperboxError):
            table.mount("one", point, record, index.payload, mechanism)
    assert table.state() == []
    assert [one.in_use for one in ContentCache(image.directory / "cache").held()] in ([], [False])
    assert not [one for one in mounts("fuse") if image.directory in one.point.parents]
    image.mounted(table, Mechanism.FILE)
    assert image.is_right()
    table.unmount("one")
    table.stop()


def test_what_nobody_serves_any_more_is_taken_out_of_the_tree(image: Image) -> None:
    table = image.table()
    image.mounted(table, Mechanism.FILE)
    table.stop()  # as a process does that had no supervisor
    later = image.table()
    later.resume()
    assert [one["phase"] for one in later.state()] == ["broken"]
    assert list(image.point.iterdir()) == []
    with pytest.raises(ConfigError):
        later.complete("one")
    later.unmount("one")
    assert later.state() == []
    later.stop()


def test_mount_whose_index_is_gone_does_not_stop_the_others(image: Image) -> None:
    table = image.table()
    image.mounted(table, Mechanism.FILE)
    table.stop()
    (kept,) = (image.directory / "cache").rglob("index")
    kept.unlink()
    later = image.table()
    later.resume()
    assert "index is gone" in str(later.state()[0]["reason"])
    later.unmount("one")
    later.stop()


def test_readers_wait_for_the_next_worker(image: Image) -> None:
    """A kill of the worker is an error at most; what was not taken waits."""
    path = image.directory / "socket"
    environment = {"PYTHONPATH": os.fspath(PROJECT), "HYPERBOX_LAZY": str(image.directory / "lazy")}
    words = [sys.executable, "-m", "hyperbox.daemon.supervisor", "--"]
    words += [sys.executable, "-m", "hyperbox.daemon.worker"]
    words += ["hyperbox.daemon.services.images:ImagesService", "--socket", os.fspath(path)]
    service = ImagesProcess(words, environment, path)
    try:
        service.start()
        wanted = {
            "name": "one",
            "point": os.fspath(image.point),
            "mechanism": str(Mechanism.FILE),
            "media_type": image.layer.media_type,
            "size": image.layer.size,
            "annotations": dict(image.layer.annotations),
            "sources": [image.url],
        }
        try:
            service.ask("POST", "/images/mounts", wanted)
        except KernelFeatureMissing as missing:
            pytest.skip(missing.message)
        assert service.ask("DELETE", "/images/cache?keep=0")["keys"] == []  # it is in use
        os.kill(service.worker(), signal.SIGKILL)
        assert image.is_right()  # asked while no worker was there
        assert service.ask("GET", "/images/mounts")[0]["missing_chunks"] == 0
        service.ask("DELETE", "/images/mounts/one")
        assert service.ask("GET", "/images/cache")[0]["in_use"] is False
        assert len(service.ask("DELETE", "/images/cache?keep=0")["keys"]) == 1
        assert service.ask("GET", "/images/cache") == []
    finally:
        service.kill()
