"""Images of real layers: the bytes, and what the kernel of this machine shows of them."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError, HyperboxError, ImageError, KernelFeatureMissing
from hyperbox.journal import UndoOutcome
from hyperbox.linux.mounts import mounts
from hyperbox.linux.undo import KINDS
from hyperbox.repair import repair
from hyperbox.storage.artifacts import files_of
from hyperbox.storage.conversion import Converter
from hyperbox.storage.converted_pruning import prune_converted
from hyperbox.storage.image_mounts import erofs_mounted
from hyperbox.storage.layer_reading import Layer
from hyperbox.storage.listing import differences, list_directory, list_tree
from hyperbox.storage.rung import Rung
from tests.storage.archives import archive, gnu_tar, layer, member, rich_tree

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Layer]:
    """Three layers: files of every kind, changes of all sorts, a directory of 128 names."""
    directory = tmp_path_factory.mktemp("layers")
    top = directory / "top"
    rich_tree(top)
    base = gnu_tar(top, "--xattrs", "--xattrs-include=*", "--format=pax")
    change = archive(
        member(b"./usr/lib/.wh.block"),
        member(b"many/.wh..wh..opq"),
        member(b"many/", kind=b"5", mode=0o700, mtime=12345),
        member(b"many/only", b"one" * 5000),
        member(b"linked", kind=b"1", link=b"usr/lib/short"),
        member(b"00/", kind=b"5", mode=0o755),  # as a directory of objects is called
        member(b"00/file", b"zero" * 40),
        member(b"ff", b"a file of that name" * 10),
        member(b"null", b"no device" * 100),
    )
    again = archive(member(b"usr/lib/block", b"back" * 2000), member(b"many/.wh.only"))
    return (
        layer(directory / "0", gzip.compress(base), base),
        layer(directory / "1", change),
        layer(directory / "2", again),
    )


def shows_its_tree(converter: Converter, layers: Sequence[Layer], rung: Rung, point: Path) -> None:
    point.mkdir(exist_ok=True)
    image = converter.convert(layers, rung)
    with converter.mounted(image, point):
        assert list(differences(list_tree(converter.tree(layers)), list_directory(point))) == []
    assert not any(found.point == point for kind in ("erofs", "overlay") for found in mounts(kind))


@pytest.mark.parametrize("rung", list(Rung))
def test_the_same_tree_on_every_rung(tmp_path: Path, layers: Sequence[Layer], rung: Rung) -> None:
    try:
        shows_its_tree(Converter(tmp_path / "store"), layers, rung, tmp_path / "point")
    except KernelFeatureMissing as missing:
        pytest.skip(missing.message)


@pytest.mark.parametrize("rung", list(Rung))
def test_128_layers(tmp_path: Path, rung: Rung) -> None:
    many = [
        layer(
            tmp_path / f"{n}",
            archive(member(b"d/%d" % n, b"%d" % n * 100), member(b"last", b"%d" % n)),
        )
        for n in range(128)
    ]
    try:
        shows_its_tree(Converter(tmp_path / "store"), many, rung, tmp_path / "point")
    except KernelFeatureMissing as missing:
        pytest.skip(missing.message)


def test_plain_images_hold_in_the_eyes_of_fsck(tmp_path: Path, layers: Sequence[Layer]) -> None:
    if shutil.which("fsck.erofs") is None:
        pytest.skip("no erofs-utils")
    converter = Converter(tmp_path / "store")
    converter.write_plain(layers, tmp_path / "plain")
    subprocess.run(["fsck.erofs", tmp_path / "plain"], check=True)


def test_compressed_images_show_the_same_tree(tmp_path: Path, layers: Sequence[Layer]) -> None:
    if shutil.which("mkfs.erofs") is None:
        pytest.skip("no erofs-utils")
    converter, point = Converter(tmp_path / "store"), tmp_path / "point"
    images = [tmp_path / "one", tmp_path / "two"]
    for image in images:
        converter.write_compressed(layers, image, "lz4")
    assert images[0].read_bytes() == images[1].read_bytes()
    subprocess.run(["fsck.erofs", images[0]], check=True)
    point.mkdir()
    with erofs_mounted(images[0], (), point):
        assert list(differences(list_tree(converter.tree(layers)), list_directory(point))) == []
    with pytest.raises(ConfigError, match=r"mkfs\.erofs cannot"):
        converter.write_compressed(layers, images[0], "no-such-thing")


def test_the_same_layers_make_the_same_bytes(tmp_path: Path, layers: Sequence[Layer]) -> None:
    for rung in (Rung.EROFS, Rung.COMPOSEFS):
        made = [
            Converter(tmp_path / store).convert(layers, rung).path.read_bytes()
            for store in ("one", "two")
        ]
        assert made[0] == made[1]


def test_a_layer_that_is_not_what_its_image_says(tmp_path: Path) -> None:
    good = layer(tmp_path / "layer", archive(member(b"a", b"x" * 100)))
    layer(tmp_path / "layer", archive(member(b"a", b"y" * 100)))
    for rung in Rung:
        with pytest.raises(ImageError, match="its image says"):
            Converter(tmp_path / "store").convert([good], rung)
    assert not list((tmp_path / "store").rglob("*.erofs"))


def test_a_full_disk_leaves_nothing_half_made(tmp_path: Path) -> None:
    big = layer(tmp_path / "layer", archive(member(b"big", os.urandom(3 << 20))))
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    try:
        for rung in Rung:
            with pytest.raises(HyperboxError, match="No space left"):
                Converter(disk).convert([big], rung)
        left = [path for path in disk.rglob("*") if path.is_file() and path.stat().st_size]
        assert left == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("rung", list(Rung))
def test_damaged_files_are_not_mounted(tmp_path: Path, layers: Sequence[Layer], rung: Rung) -> None:
    converter, point = Converter(tmp_path / "store"), tmp_path / "point"
    image = converter.convert(layers, rung)
    point.mkdir()
    shows_its_tree(converter, layers, rung, point)  # verified once: a later change counts, too
    files = sorted(files_of(image.manifest))
    for path in files[:: max(1, len(files) // 12)]:
        data, mode = path.read_bytes(), path.stat().st_mode
        place = len(data) // 2
        flipped = data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]
        for damaged in (flipped, data[:place], b""):
            path.write_bytes(damaged)
            with pytest.raises(ImageError, match="bytes"), converter.mounted(image, point):
                pass
        path.unlink()
        with pytest.raises(ImageError, match="is gone"), converter.mounted(image, point):
            pass
        path.write_bytes(data)
        path.chmod(mode)
    if rung is not Rung.OVERLAY:  # there the files themselves show, with the times of this test
        shows_its_tree(converter, layers, rung, point)


def test_what_is_gone_is_made_again(tmp_path: Path, layers: Sequence[Layer]) -> None:
    converter = Converter(tmp_path / "store")
    for rung in (Rung.EROFS, Rung.LAYERS):
        converter.convert(layers, rung).parts[-1].unlink()
        shows_its_tree(converter, layers, rung, tmp_path / "point")


def test_what_no_image_needs_is_removed(tmp_path: Path, layers: Sequence[Layer]) -> None:
    converter, point = Converter(tmp_path), tmp_path / "point"
    other = [*layers[:1], layer(tmp_path / "other", archive(member(b"other", b"o" * 9000)))]
    for rung in Rung:
        converter.convert(other, rung)
    (converter.root / ".new-killed").mkdir()
    before = {path for path in converter.root.rglob("*") if path.is_file()}
    for rung in Rung:
        converter.convert(layers, rung)
    assert prune_converted(tmp_path, [other])[0] > 0
    left = {path for path in converter.root.rglob("*") if path.is_file()}
    assert {path for path in left ^ before if path.suffix not in (".lock", ".verified")} == set()
    for rung in Rung:
        shows_its_tree(converter, other, rung, point)
        shows_its_tree(converter, layers, rung, point)
    prune_converted(tmp_path, [])
    assert not [
        path for path in converter.root.rglob("*") if path.is_file() and path.suffix != ".lock"
    ]


@pytest.mark.parametrize("rung", list(Rung))
def test_what_a_killed_process_has_mounted_is_unmounted_by_a_repair(
    tmp_path: Path, layers: Sequence[Layer], rung: Rung, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERBOX_STATE", str(tmp_path / "state"))
    converter, point = Converter(tmp_path / "store"), tmp_path / "point"
    point.mkdir()
    image = converter.convert(layers, rung)
    child = os.fork()
    if child == 0:
        with converter.mounted(image, point):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert list(point.iterdir())
    done = repair(KINDS)
    assert [one.outcome for one in done] == [UndoOutcome.UNDONE]
    assert not list(point.iterdir())


def test_equal_files_are_in_an_image_once(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) + b"and a tail"
    twice = [layer(tmp_path / "layer", archive(member(b"a", data), member(b"b", data)))]
    converter = Converter(tmp_path / "store")
    converter.write_plain(twice, tmp_path / "plain")
    assert (tmp_path / "plain").stat().st_size < 1.2 * len(data)
    shows_its_tree(converter, twice, Rung.LAYERS, tmp_path / "point")
