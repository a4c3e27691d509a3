from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.errors import HyperboxError, ImageError
from hyperbox.storage.compression import decompressed
from hyperbox.storage.content_sink import BlobSink
from hyperbox.storage.inode import Content
from hyperbox.storage.layer import Added, Linked, Removed
from hyperbox.storage.layer_reading import Layer, read_layer
from hyperbox.storage.limits import Limits
from hyperbox.storage.listing import differences, list_directory, list_tree
from hyperbox.storage.tar_stream import TarStream
from hyperbox.storage.tree import Tree
from tests.storage.archives import archive, gnu_tar, layer, member, record, rich_tree

LIMITS = Limits()


def files(data: bytes, limits: Limits = LIMITS) -> dict[bytes, bytes]:
    """Name and data of every member, holes filled."""
    tar = TarStream(io.BytesIO(data), limits)
    found = {}
    for entry in tar:
        whole = bytearray(entry.header.size)
        for offset, piece in tar.data():
            whole[offset : offset + len(piece)] = piece
        found[entry.header.name] = bytes(whole)
    assert tar.finish() == "sha256:" + hashlib.sha256(data).hexdigest()
    return found


def changes(data: bytes, tmp_path: Path, limits: Limits = LIMITS) -> list[object]:
    one = layer(tmp_path / "layer.tar", data)
    with (tmp_path / "blob").open("wb") as blob:
        return list(read_layer(one, BlobSink(blob, one.key), limits))


@pytest.mark.root
@pytest.mark.parametrize(
    "options",
    [
        ("--xattrs", "--xattrs-include=*", "--sparse-version=1.0"),
        ("--xattrs", "--xattrs-include=*", "--sparse-version=0.1"),
        ("--xattrs", "--xattrs-include=*", "--sparse-version=0.0"),
        ("--format=gnu",),
    ],
)
def test_all_that_gnu_tar_writes(tmp_path: Path, options: tuple[str, ...]) -> None:
    top = tmp_path / "top"
    rich_tree(top)
    data = gnu_tar(top, *options)
    one = layer(tmp_path / "layer.tar", data)
    tree = Tree()
    with (tmp_path / "blob").open("wb") as blob:
        tree.apply(read_layer(one, BlobSink(blob, one.key), LIMITS))
    expected, found = list_directory(top), list_tree(tree)
    lines = list(differences(expected, found))
    if "--format=gnu" in options:  # whole seconds, no attributes
        lines = [line for line in lines if "mtime" not in line and "xattrs" not in line]
    assert lines == []


def test_pax_sparse_file_whose_size_follows_its_real_size() -> None:
    """What the standard library's tarfile reads as zeros, losing the member after it."""
    stored = b"1\n1024\n5\n".ljust(512, b"\0") + b"hello"
    sparse = member(
        b"GNUSparseFile.0/name",
        stored,
        pax={
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": b"name",
            b"GNU.sparse.realsize": b"4096",
            b"size": b"%d" % len(stored),
        },
    )
    found = files(archive(sparse, member(b"next", b"here")))
    assert found[b"name"] == bytes(1024) + b"hello" + bytes(4096 - 1029)
    assert found[b"next"] == b"here"


def test_values_of_extended_headers_may_hold_any_byte(tmp_path: Path) -> None:
    value = b"\0\n7 a=b\n\xff"
    pax = {b"SCHILY.xattr.user.x": value, b"path": b"n\xff\n", b"mtime": b"-1.25"}
    (one,) = changes(archive(member(b"short", pax=pax)), tmp_path)
    assert isinstance(one, Added)
    assert one.path == (b"n\xff\n",)
    assert one.inode.xattrs == ((b"user.x", value),)
    assert one.inode.mtime == -1_250_000_000


def test_binary_numbers_and_old_headers() -> None:
    block = bytearray(member(b"directory/")[:512])
    block[257:265] = bytes(8)  # V7: no magic, a directory by its slash
    block[156] = 0
    block[108:116] = b"\x80" + (3_000_000_000).to_bytes(7)
    block[136:148] = b"\xff" * 12  # -1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (entry,) = TarStream(io.BytesIO(archive(bytes(block))), LIMITS)
    assert entry.header.kind == b"5"
    assert entry.header.uid == 3_000_000_000
    assert entry.header.mtime == -1_000_000_000


def test_long_names_of_gnu_tar() -> None:
    name, link = b"n" * 300, b"l" * 200
    data = archive(
        member(b"././@LongLink", link + b"\0", kind=b"K"),
        member(b"././@LongLink", name + b"\0", kind=b"L"),
        member(b"n" * 100, kind=b"2", link=b"l" * 100),
    )
    (entry,) = TarStream(io.BytesIO(data), LIMITS)
    assert (entry.header.name, entry.header.link) == (name, link)


def test_whiteouts_links_and_names(tmp_path: Path) -> None:
    data = archive(
        member(b"/a/./b//c"),
        member(b"a/.wh.gone"),
        member(b"a/.wh..wh..opq"),
        member(b".wh..wh.plnk", kind=b"5"),
        member(b"link", kind=b"1", link=b"./a/b/c"),
    )
    found = changes(data, tmp_path)
    assert [type(one) for one in found] == [Added, Removed, Removed, Linked]
    assert [getattr(one, "path", None) for one in found] == [
        (b"a", b"b", b"c"),
        (b"a", b"gone"),
        (b"a",),
        (b"link",),
    ]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (member(b"../out"), "leads out"),
        (member(b"a/../../out"), "leads out"),
        (member(b"link", kind=b"1", link=b"../../etc/passwd"), "leads out"),
        (member(b"a/.wh..."), "no name"),
        (member(b"a/.wh."), "no name"),
        (member(b"a" * 90 + b"/" + b"b" * 9, pax={b"path": b"b" * 256}), "longer than 255"),
        (member(b"x", pax={b"path": b"d/" * 257 + b"f"}), "deeper than"),
        (member(b"x", pax={b"path": b"a\0b"}), "NUL"),
        (member(b"x", pax={b"uid": b"4294967295"}), "out of range"),
        (member(b"x", pax={b"uid": b"-1"}), "uid"),
        (member(b"x", pax={b"mtime": b"1e99"}), "time"),
        (member(b"x", pax={b"SCHILY.xattr.trusted.overlay.redirect": b"/etc"}), "overlayfs"),
        (member(b"zero", kind=b"3"), "0:0"),
        (member(b"x", kind=b"M"), "type"),
        (member(b"x", b"data")[:-600], "cut short|ends after"),
        (member(b"x", record(b"a", b"b"), kind=b"x"), "ends after"),
        (member(b"x", b"5 a=b", kind=b"x"), "extended header"),
        (member(b"x").replace(b"0000644", b"0000645"), "checksum"),
        (bytes(512) + member(b"x"), "goes on"),
        (member(b"", kind=b"2", link=b"x"), "root"),
    ],
)
def test_what_is_refused(tmp_path: Path, bad: bytes, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        changes(bad + bytes(1024), tmp_path)


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        (Limits(entries=2), archive(*(member(b"%d" % n) for n in range(3)))),
        (Limits(depth=2), archive(member(b"a/b/c"))),
        (Limits(total_bytes=10), archive(member(b"a", b"x" * 6), member(b"b", b"x" * 6))),
        (Limits(header_bytes=100), archive(member(b"a", pax={b"comment": b"x" * 200}))),
        (Limits(path_bytes=20), archive(member(b"a" * 30))),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, data: bytes) -> None:
    assert changes(data, tmp_path)
    with pytest.raises(ImageError):
        changes(data, tmp_path, limits)


def test_sparse_maps_that_lie(tmp_path: Path) -> None:
    for text in (b"0,10,5,10", b"0,3", b"0,20", b"4,", b"99999999999999999999,1"):
        pax = {b"GNU.sparse.map": text, b"GNU.sparse.size": b"15", b"GNU.sparse.name": b"n"}
        with pytest.raises(ImageError):
            changes(archive(member(b"x", b"d" * 10, pax=pax)), tmp_path)


def test_bombs(tmp_path: Path) -> None:
    raw = archive(member(b"zeros", bytes(4 << 20)))
    bomb = gzip.compress(raw, 9)
    reader = decompressed(io.BytesIO(bomb), ratio=100, free=1 << 20)
    with pytest.raises(ImageError, match="more than 100 times"):
        reader.read(2 << 20)
    one = layer(tmp_path / "layer", bomb, raw)
    with (tmp_path / "blob").open("wb") as blob:
        assert read_layer(one, BlobSink(blob, one.key), LIMITS)


def zstd_frames(data: bytes) -> bytes:
    half = len(data) // 2
    packed = [
        subprocess.run(["zstd", "-c"], input=part, check=True, stdout=subprocess.PIPE).stdout
        for part in (data[:half], data[half:])
    ]
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"other"
    return skippable + packed[0] + skippable + packed[1] + skippable


def gzip_members(data: bytes) -> bytes:
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(data[half:])


@pytest.mark.parametrize("compress", [zstd_frames, gzip_members, bytes])
def test_frames_and_members(tmp_path: Path, compress: type) -> None:
    raw = archive(*(member(b"%d" % number, b"x" * number * 10) for number in range(200)))
    one = layer(tmp_path / "layer", compress(raw), raw)
    with (tmp_path / "blob").open("wb") as blob:
        assert len(read_layer(one, BlobSink(blob, one.key), LIMITS)) == 200


@pytest.mark.parametrize("compress", [zstd_frames, gzip_members, bytes])
def test_damaged_layers_are_refused(tmp_path: Path, compress: type) -> None:
    raw = archive(*(member(b"%d" % number, b"x%d" % number * 100) for number in range(50)))
    packed = compress(raw)
    digest = layer(tmp_path / "raw", raw).diff_id
    for place in range(0, len(packed), max(1, len(packed) // 40)):
        for damaged in (
            packed[:place],
            packed[:place] + bytes((packed[place] ^ 0x10,)) + packed[place + 1 :],
        ):
            (tmp_path / "layer").write_bytes(damaged)
            one = Layer(tmp_path / "layer", "", digest)
            with (tmp_path / "blob").open("wb") as blob:
                try:
                    found = read_layer(one, BlobSink(blob, one.key), LIMITS)
                except ImageError:
                    continue
            assert len(found) == 50  # a bit that says nothing: the name of the packed file, say


names = st.binary(min_size=1, max_size=60).filter(
    lambda name: b"\0" not in name and b"/" not in name and not name.startswith(b".")
)


@given(st.dictionaries(names, st.binary(max_size=2000), max_size=8))
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out(content: dict[bytes, bytes]) -> None:
    data = archive(*(member(b"x", d, pax={b"path": name}) for name, d in content.items()))
    assert files(data) == content


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_bytes_crash_it(data: st.DataObject) -> None:
    """Either members or one clear error; never another exception."""
    stored = b"2\n0\n3\n1024\n2\n".ljust(512, b"\0") + b"hello"
    pax = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.realsize": b"4096",
        b"mtime": b"1.5",
        b"SCHILY.xattr.user.a": b"b",
    }
    good = bytearray(archive(member(b"sparse", stored, pax=pax), member(b"b", b"data")))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(good) - 1))
        good[place] = data.draw(st.integers(0, 255))
    for start in range(0, len(good) - 512, 512):  # let headers be read: mend their sums
        if good[start + 257 : start + 262] == b"ustar":
            good[start + 148 : start + 156] = b" " * 8
            total = sum(good[start : start + 512])
            good[start + 148 : start + 156] = b"%06o\0 " % total
    tar = TarStream(io.BytesIO(bytes(good)), Limits(total_bytes=1 << 20))
    try:
        for entry in tar:
            for offset, piece in tar.data():
                assert offset + len(piece) <= entry.header.size
        tar.finish()
    except HyperboxError:
        pass


def test_short_files_stay_with_the_metadata(tmp_path: Path) -> None:
    (one,) = changes(archive(member(b"a", b"short")), tmp_path)
    assert isinstance(one, Added)
    assert one.inode.content == Content(5, hashlib.sha256(b"short").hexdigest(), inline=b"short")
