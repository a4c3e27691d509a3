"""Reads of an image that is not here yet: right bytes or an error, whatever the source does."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hyperbox.files import write_bytes
from hyperbox.processes import spawn, stop
from hyperbox.storage.lazy.chunk_index import encode_chunk_index
from hyperbox.storage.lazy.chunk_source import FileSource, HttpSource
from hyperbox.storage.lazy.completion import Completion
from hyperbox.storage.lazy.lazy_image import Unreadable
from suites.erofs.blob_server import serving
from tests.storage.lazy.conftest import CHUNK, Lab

HERE = Path(__file__).parent


def test_any_read_is_right_and_fetches_each_chunk_once(lab: Lab) -> None:
    image = lab.image()
    seeded = random.Random(1)
    reads = [(seeded.randrange(len(lab.content) + 9), seeded.randrange(40_000)) for _ in range(300)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: image.read(*one), reads))
    assert found == [lab.content[offset : offset + length] for offset, length in reads]
    assert image.read(0, 1 << 30) == lab.content
    counts = image.counts
    assert counts.chunks == len(lab.layer.index.chunks)
    assert counts.fetched == sum(chunk.stored_length for chunk in lab.layer.index.chunks)
    assert (counts.refused, counts.failed, counts.errors) == (0, 0, 0)
    image.close()


def test_second_use_fetches_nothing(lab: Lab) -> None:
    image = lab.image()
    image.read(0, len(lab.content))
    image.close()
    asked = len(lab.server.requests)
    lab.server.fault = "refuse"
    again = lab.image(limit_s=0.0)
    assert again.read(0, len(lab.content)) == lab.content
    assert len(lab.server.requests) == asked
    assert again.cached.absent() == []
    again.close()


@pytest.mark.parametrize("fault", ["flip", "wrong range", "cut", "short", "refuse"])
def test_source_that_lies_is_an_error_and_never_bytes(lab: Lab, fault: str) -> None:
    lab.server.fault = fault
    image = lab.image(limit_s=0.2)
    with pytest.raises(Unreadable):
        image.read(0, 10)
    assert not image.cached.present(lab.layer.index.chunks[0])
    lab.server.fault = ""
    assert image.read(0, len(lab.content)) == lab.content
    image.close()


def test_server_without_range_is_read_up_to_the_range(lab: Lab) -> None:
    lab.server.fault = "no range"
    image = lab.image()
    assert image.read(5 * CHUNK, 99) == lab.content[5 * CHUNK : 5 * CHUNK + 99]
    image.close()


def test_next_source_serves_where_the_first_one_lies(lab: Lab) -> None:
    with serving(lab.directory / "blobs") as second:
        lab.server.fault = "flip"
        image = lab.image(lab.source(), HttpSource(f"{second.url}/layer"))
        assert image.read(0, len(lab.content)) == lab.content
        assert image.counts.refused > 0
        image.close()


def test_secrets_do_not_follow_a_redirect_to_another_host(lab: Lab) -> None:
    with serving(lab.directory / "blobs") as second:
        lab.server.fault, lab.server.location = "redirect", f"{second.url}/layer"
        source = HttpSource(f"{lab.server.url}/layer", headers={"Authorization": "Bearer x"})
        image = lab.image(source)
        assert image.read(0, 100) == lab.content[:100]
        assert lab.server.requests[0].endswith("Bearer x")
        assert not any("Bearer" in request for request in second.requests)
        image.close()


def test_blob_in_a_file(lab: Lab) -> None:
    source = FileSource(lab.directory / "blobs" / "layer")
    image = lab.image(source)  # type: ignore[arg-type]
    assert image.read(100, 50_000) == lab.content[100:50_100]
    image.close()


def test_completion_fetches_the_rest_and_says_so(lab: Lab) -> None:
    image = lab.image()
    image.read(3 * CHUNK, 1)
    ends: list[int] = []
    completion = Completion(image, then=lambda: ends.append(len(image.cached.absent())))
    completion.start()
    completion.wait()
    assert ends == [0]
    assert image.cached.data.read_bytes() == lab.content
    assert image.counts.chunks == len(lab.layer.index.chunks)
    image.close()


def test_order_of_a_start_is_what_the_next_one_prefetches(lab: Lab) -> None:
    image = lab.image()
    for number in (7, 2, 9):
        image.read(number * CHUNK, 1)
    assert list(image.order) == [7, 2, 9]
    image.close()


def test_full_disk_is_an_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    image = lab.image(limit_s=0.2)
    full = os.open("/dev/full", os.O_RDWR)
    monkeypatch.setattr(image.cached, "_data", full)
    with pytest.raises(Unreadable, match="No space left"):
        image.read(0, 10)
    assert not image.cached.present(lab.layer.index.chunks[0])
    monkeypatch.undo()
    os.close(full)
    assert image.read(0, len(lab.content)) == lab.content
    image.close()


def filler(lab: Lab) -> subprocess.Popen[bytes]:
    """Another process that reads the whole image, again and again from the start."""
    write_bytes(lab.directory / "index", encode_chunk_index(lab.layer.index))
    last = lab.layer.index.chunks[-1]
    stored = str(last.stored_at + last.stored_length)
    program: list[str | Path] = [
        sys.executable,
        HERE / "filling.py",
        lab.directory,
        lab.key,
        stored,
    ]
    return spawn([*program, f"{lab.server.url}/layer"], stdout=subprocess.PIPE, cwd=Path.cwd())


def test_two_processes_fetch_each_chunk_once(lab: Lab) -> None:
    others = [filler(lab) for _ in range(2)]
    try:
        for other in others:
            assert other.wait(60) == 0
    finally:
        for other in others:
            stop(other)
    wanted = sum(chunk.stored_length for chunk in lab.layer.index.chunks)
    assert lab.server.sent == wanted
    assert (lab.directory / "cache" / "v1" / lab.key / "data").read_bytes() == lab.content


def test_kill_at_any_point_leaves_no_wrong_byte(lab: Lab) -> None:
    seeded = random.Random(3)
    for _ in range(6):
        other = filler(lab)
        assert other.stdout is not None
        other.stdout.readline()
        time.sleep(seeded.random() * 0.03)
        os.kill(other.pid, signal.SIGKILL)
        stop(other)
        with lab.cache.open(lab.key, lab.layer.index) as cached:
            assert cached.damaged() == []
            for chunk in lab.layer.index.chunks:
                if cached.present(chunk):
                    assert (
                        cached.read(chunk.offset, chunk.length)
                        == lab.content[chunk.offset : chunk.end]
                    )
    image = lab.image()
    assert image.read(0, len(lab.content)) == lab.content
    image.close()
