"""The cache on disk: what is marked is there, what is used stays, what rots is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperbox.errors import ConfigError
from hyperbox.storage.lazy.content_cache import ContentCache
from tests.storage.lazy.conftest import CHUNK, Lab


def filled(lab: Lab) -> int:
    image = lab.image()
    image.read(0, len(lab.content))
    image.close()
    return lab.cache.held()[0].on_disk


def test_eviction_leaves_what_is_used(lab: Lab) -> None:
    on_disk = filled(lab)
    opened = lab.cache.open(lab.key, lab.layer.index)
    assert lab.cache.held()[0].in_use
    assert lab.cache.evict(0).keys == ()
    assert opened.read(0, 9) == lab.content[:9]
    opened.close()
    assert lab.cache.evict(on_disk).keys == ()
    evicted = lab.cache.evict(on_disk - 1)
    assert (evicted.keys, evicted.bytes_freed) == ((lab.key,), on_disk)
    assert lab.cache.held() == []
    with lab.cache.open(lab.key, lab.layer.index) as again:
        assert len(again.absent()) == len(lab.layer.index.chunks)


def test_longest_unused_image_goes_first(lab: Lab) -> None:
    filled(lab)
    other = "0" * 64
    with lab.cache.open(other, lab.layer.index) as opened:
        for chunk in lab.layer.index.chunks:
            opened.write(chunk, lab.content[chunk.offset : chunk.end])
    with lab.cache.open(lab.key, lab.layer.index):
        pass
    assert [one.key for one in lab.cache.held()] == [other, lab.key]
    assert lab.cache.evict(lab.cache.held()[1].on_disk).keys == (other,)


def test_what_was_not_committed_is_absent_after_a_restart(lab: Lab) -> None:
    chunk = lab.layer.index.chunks[1]
    with lab.cache.open(lab.key, lab.layer.index) as opened:
        opened.write(chunk, lab.content[chunk.offset : chunk.end])
        assert opened.present(chunk)
    with lab.cache.open(lab.key, lab.layer.index) as again:
        assert not again.present(chunk)


def test_changed_bytes_are_found_and_forgotten(lab: Lab) -> None:
    filled(lab)
    with lab.cache.open(lab.key, lab.layer.index) as opened:
        assert opened.damaged() == []
        with opened.data.open("r+b") as stream:
            stream.seek(2 * CHUNK + 5)
            stream.write(b"rotten")
        assert [chunk.number for chunk in opened.damaged()] == [2]
        assert [chunk.number for chunk in opened.absent()] == [2]
    image = lab.image()
    assert image.read(0, len(lab.content)) == lab.content
    image.close()


def test_files_of_another_size_mark_nothing(lab: Lab) -> None:
    filled(lab)
    directory = lab.directory / "cache" / "v1" / lab.key
    (directory / "map").write_bytes((directory / "map").read_bytes()[:12])
    (directory / "data").write_bytes(lab.content[: CHUNK + 7])
    with lab.cache.open(lab.key, lab.layer.index) as opened:
        assert list(opened.absent()) == list(lab.layer.index.chunks)


def test_only_digests_are_keys(tmp_path: Path, lab: Lab) -> None:
    with pytest.raises(ConfigError):
        ContentCache(tmp_path).open("../etc", lab.layer.index)
