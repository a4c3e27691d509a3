"""The chunk index: what is written is read back, and what contradicts itself is refused."""

from __future__ import annotations

import hashlib
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperbox.storage.lazy.chunk_index import (
    RANGE,
    BadIndex,
    Chunk,
    ChunkIndex,
    Compression,
    encode_chunk_index,
    index_range,
    parse_chunk_index,
)
from hyperbox.storage.lazy.layer_writer import write_layer
from hyperbox.storage.zstd import BadFrame, compress, decompress

SIZES = st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), max_size=8)


def index_of(sizes: list[tuple[int, int]], compression: Compression) -> tuple[ChunkIndex, int]:
    """An index with chunks of these sizes in the image and in the blob, and the blob's size."""
    chunks: list[Chunk] = []
    offset = at = 0
    for number, (length, framed) in enumerate(sizes):
        stored = length if compression is Compression.NONE else framed
        checksum = hashlib.sha256(bytes([number])).digest()
        chunks.append(Chunk(number, offset, length, at, stored, checksum))
        offset, at = offset + length, at + stored
    return ChunkIndex(offset, compression, tuple(chunks)), at


@given(SIZES, st.sampled_from(Compression))
def test_what_is_written_is_read(sizes: list[tuple[int, int]], compression: Compression) -> None:
    index, stored = index_of(sizes, compression)
    assert parse_chunk_index(encode_chunk_index(index), stored=stored) == index


@given(SIZES.filter(bool), st.integers(0, 40_000), st.integers(-1, 40_000))
def test_covering_chunks_are_those_with_bytes_of_the_range(
    sizes: list[tuple[int, int]], offset: int, length: int
) -> None:
    index, _ = index_of(sizes, Compression.ZSTD)
    expected = [
        chunk
        for chunk in index.chunks
        if max(chunk.offset, offset) < min(chunk.end, offset + length)
    ]
    assert list(index.covering(offset, length)) == expected


VALID, STORED = index_of([(4096, 100), (4096, 200), (77, 5)], Compression.ZSTD)
PAYLOAD = encode_chunk_index(VALID)


def changed(offset: int, data: bytes) -> bytes:
    return PAYLOAD[:offset] + data + PAYLOAD[offset + len(data) :]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        PAYLOAD[:31],
        PAYLOAD[:-1],
        PAYLOAD + b"\0",
        changed(0, b"\xce"),  # magic
        changed(4, b"\x02"),  # version
        changed(5, b"\x02"),  # compression
        changed(6, b"\x01"),  # flags
        changed(8, struct.pack("<Q", 8192)),  # ends before its last chunk begins
        changed(8, struct.pack("<Q", 1 << 63)),
        changed(16, struct.pack("<I", 2)),
        changed(16, struct.pack("<I", (1 << 32) - 1)),
        changed(20, b"\x00\x00"),  # no checksums
        changed(21, b"\x40"),
        changed(31, b"\x01"),  # reserved
        changed(40, struct.pack("<Q", 1)),  # the first chunk does not begin at 0
        changed(80, struct.pack("<Q", 0)),  # the second one is stored where the first one is
        changed(88, struct.pack("<Q", 0)),
        changed(88, struct.pack("<Q", 1 << 62)),
        changed(128, struct.pack("<Q", STORED)),
        changed(32, struct.pack("<Q", (1 << 64) - 1)),
    ],
)
def test_contradictions_are_refused(payload: bytes) -> None:
    with pytest.raises(BadIndex):
        parse_chunk_index(payload, stored=STORED)


@settings(max_examples=1000, deadline=None)
@example(PAYLOAD)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda edits: bytes(_edited(edits)),
            st.lists(st.tuples(st.integers(0, len(PAYLOAD) - 1), st.integers(0, 255)), max_size=6),
        ),
    )
)
def test_whatever_is_read_is_consistent_or_refused(payload: bytes) -> None:
    try:
        index = parse_chunk_index(payload, stored=STORED)
    except BadIndex:
        return
    assert sum(chunk.length for chunk in index.chunks) == index.size
    for chunk in index.chunks:
        assert 0 <= chunk.stored_at <= chunk.stored_at + chunk.stored_length <= STORED
    assert encode_chunk_index(index) == payload


def _edited(edits: list[tuple[int, int]]) -> bytearray:
    data = bytearray(PAYLOAD)
    for place, value in edits:
        data[place] = value
    return data


@pytest.mark.parametrize("said", ["", "x", "-1:5", "5:3", "0:101", "95", "1:2:3", "9" * 30])
def test_ranges_outside_the_blob_are_refused(said: str) -> None:
    with pytest.raises(BadIndex):
        index_range({RANGE: said}, 100, framed=True)


def test_range_without_end_goes_to_the_blobs_end() -> None:
    assert index_range({RANGE: "40"}, 100, framed=True) == (40, 48, 100)
    assert index_range({RANGE: "40:90"}, 100, framed=False) == (40, 40, 90)


@pytest.mark.parametrize("compression", Compression)
def test_layer_is_the_image_to_everybody(tmp_path: Path, compression: Compression) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(70_000) + b"text" * 9000 + bytes(range(256)) * 100)
    layer = write_layer(image, tmp_path / "layer", compression=compression, chunk_size=1 << 14)
    blob = (tmp_path / "layer").read_bytes()
    assert layer.digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert layer.size == len(blob)
    framed = compression is Compression.ZSTD
    start, payload, end = index_range(layer.annotations, len(blob), framed=framed)
    assert parse_chunk_index(blob[payload:end], stored=start) == layer.index
    for chunk in layer.index.chunks:
        assert chunk.is_stored_as(blob[chunk.stored_at : chunk.stored_at + chunk.stored_length])
    if framed:  # an independent decoder passes over the index
        done = subprocess.run(["zstd", "-dc", tmp_path / "layer"], check=True, capture_output=True)
        assert done.stdout == image.read_bytes()
    else:
        assert blob.startswith(image.read_bytes())


def test_frames_of_another_length_are_refused() -> None:
    frame = compress(b"some text" * 100)
    assert decompress(frame, 900) == b"some text" * 100
    for bad, length in [(frame, 899), (frame, 901), (frame + frame, 900), (frame[:-1], 900)]:
        with pytest.raises(BadFrame):
            decompress(bad, length)
    with pytest.raises(BadFrame):
        decompress(b"no frame", 8)
    padded = frame + struct.pack("<II", 0x184D2A55, 3) + b"pad"
    assert decompress(padded, 900) == b"some text" * 100
