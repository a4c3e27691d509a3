"""Lazy mounts on the machine's own kernel, by every mechanism that it has."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import signal
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyperbox.errors import (
    ConfigError,
    HarnessError,
    HyperboxError,
    KernelFeatureMissing,
    WorkloadError,
)
from hyperbox.linux.mounts import mount, mounts, unmount
from hyperbox.storage.conversion import Converter
from hyperbox.storage.layer_reading import Layer as TarLayer
from hyperbox.storage.lazy.chunk_index import BadIndex, ChunkIndex, encode_chunk_index
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

    def mounted(
        self, table: LazyMounts, mechanism: Mechanism, name: str = "one", point: Path | None = None
    ) -> None:
        index = self.index()
        record = LayerRecord(index.key, index.stored, (self.url,))
        try:
            table.mount(name, point or self.point, record, index.payload, mechanism)
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


@contextlib.contextmanager
def served(directory: Path, seed: int) -> Iterator[Image]:
    """An image of files by a seed, behind a server of its own."""
    seeded = random.Random(seed)
    contents = {f"dir{n % 3}/file{n}": seeded.randbytes(n * 4000 + 7) for n in range(20)}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (directory / "mount").mkdir(parents=True)
    (directory / "tar").write_bytes(stream.getvalue())
    digest = f"sha256:{hashlib.sha256(stream.getvalue()).hexdigest()}"
    Converter(directory / "store").write_plain(
        [TarLayer(directory / "tar", "", digest)], directory / "image"
    )
    layer = write_layer(directory / "image", directory / "blobs" / "layer", chunk_size=1 << 15)
    with serving(directory / "blobs") as server:
        yield Image(directory, contents, layer, server)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    with served(tmp_path, 5) as made:
        yield made


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


@pytest.mark.parametrize("mechanism", [Mechanism.FILE, Mechanism.LOOP])
def test_complete_image_is_mounted_again_without_any_process(
    image: Image, mechanism: Mechanism
) -> None:
    table = image.table()
    image.mounted(table, mechanism)
    assert image.is_right()
    table.complete("one")
    while table.state()[0]["phase"] != "complete":
        time.sleep(0.01)
    table.unmount("one")
    sent = image.server.sent
    image.mounted(table, mechanism)
    assert table.state()[0]["served_by_a_process"] is False
    table.stop()
    assert ContentCache(image.directory / "cache").held()[0].in_use is False
    assert image.is_right()  # while nobody serves
    table = image.table()
    table.resume()
    assert table.state()[0]["phase"] == "complete"
    assert ContentCache(image.directory / "cache").evict(0).keys == ()
    assert image.is_right()
    assert image.server.sent - sent < 4096  # the index
    table.unmount("one")
    table.stop()


def test_index_that_covers_less_than_the_image_is_refused(image: Image) -> None:
    """The kernel would read zeros behind the end of such a file."""
    table, whole = image.table(), image.layer.index
    cut = whole.chunks[:-1]
    payload = encode_chunk_index(ChunkIndex(cut[-1].end, whole.compression, cut))
    stored = cut[-1].stored_at + cut[-1].stored_length
    record = LayerRecord(hashlib.sha256(payload).hexdigest(), stored, (image.url,))
    with pytest.raises(BadIndex, match="contradicts the image"):
        table.mount("one", image.point, record, payload, Mechanism.FILE)
    assert table.state() == []
    table.stop()


def test_registry_that_is_gone_breaks_its_image_and_no_other(image: Image, tmp_path: Path) -> None:
    table = image.table(limit_s=0.2)
    with served(tmp_path / "other", 6) as other:
        image.mounted(table, Mechanism.FILE)
        with pytest.raises(ConfigError, match="mounted already"):
            other.mounted(table, Mechanism.FILE)
        other.mounted(table, Mechanism.FILE, "two", other.point)
    with pytest.raises(OSError, match="Input/output error"):  # its server has ended
        other.is_right()
    assert image.is_right()
    assert [one["phase"] for one in table.state()] == ["served", "served"]
    for name in ("one", "two"):
        table.unmount(name)
    table.stop()


def test_unmount_while_reads_wait_is_refused_and_they_go_on(image: Image) -> None:
    table = image.table()
    image.mounted(table, Mechanism.FILE)
    image.server.pause_s = 0.5
    with ThreadPoolExecutor(1) as pool, (image.point / "dir1/file19").open("rb") as stream:
        reading = pool.submit(stream.read)
        with pytest.raises(WorkloadError, match="busy"):
            table.unmount("one")
        assert reading.result() == image.contents["dir1/file19"]
    image.server.pause_s = 0.0
    table.unmount("one")
    assert table.state() == []
    table.stop()


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


def test_mount_in_use_elsewhere_is_served_on_when_its_own_place_is_gone(image: Image) -> None:
    """A container's is not seen in this tree; without its server fanotify would show holes."""
    table, other = image.table(), image.directory / "other"
    image.mounted(table, Mechanism.LOOP)
    other.mkdir()
    mount("none", other, source=os.fspath(image.point), flags=0x1000)  # MS_BIND
    with pytest.raises(WorkloadError, match=f"has it at {other}"):
        table.unmount("one")
    unmount(image.point)  # by hand
    with pytest.raises(WorkloadError, match=f"has it at {other}"):
        table.unmount("one")
    for name, data in image.contents.items():
        assert (other / name).read_bytes() == data
    unmount(other)
    table.unmount("one")
    assert table.state() == []
    table.stop()
    assert not [one for one in mounts("fuse") if image.directory in one.point.parents]


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
